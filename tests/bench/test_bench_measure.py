"""The repetitions, with a clock and peaks of the tests' own."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from unrolled.bench import machine_lines, run_bench
from unrolled.bench.config import BenchConfig
from unrolled.bench.measure import Sample, Work, measure, timed
from unrolled.bench.peak import Peaks, amount_of_peak, peak_memory, peak_speed


class World:
    """A clock that only work moves on, and what happened, in order."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events: list[str] = []

    def clock(self) -> float:
        return self.now

    def work(self, name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.now += seconds
            self.events.append(name)

        return call

    def machine(self, speeds: dict[str, float]) -> Callable[[str, int], tuple[Callable[[], None], float]]:
        """Peaks of a machine that does so much a second of each kind."""

        def make(kind: str, size: int) -> tuple[Callable[[], None], float]:
            amount = amount_of_peak(kind, size)
            return self.work(f"{kind} {size}", amount / speeds[kind]), amount

        return make

    def peak(self, kind: str) -> float:
        self.events.append(f"peak {kind}")
        return float(len(self.events))


def run(world: World, works: list[Work], repeats: int = 1, until: float = 1e9, seed: int = 0) -> list[list[Sample]]:
    return measure(works, world.peak, repeats, until, least=0.0, seed=seed, clock=world.clock)


def test_a_short_call_is_repeated() -> None:
    world = World()
    assert timed(world.work("a", 0.25), 0.9, world.clock) == pytest.approx(0.25)
    assert world.events == ["a"] * 4
    world = World()
    assert timed(world.work("a", 2.0), 0.9, world.clock) == 2.0
    assert world.events == ["a"]


def test_every_row_once_a_repetition_between_peaks_of_its_kind() -> None:
    world = World()
    works = [Work(world.work(name, 1.0 + i), "copy" if name == "s" else "float32", 1) for i, name in enumerate("abs")]
    samples = run(world, works, repeats=2)
    assert [[one.seconds for one in row] for row in samples] == [[1, 1], [2, 2], [3, 3]]
    for index, name in enumerate("abs"):
        kind = works[index].kind
        places = [i for i, event in enumerate(world.events) if event == name]
        assert len(places) == 2
        for place, sample in zip(places, samples[index], strict=True):
            assert world.events[place - 1] == world.events[place + 1] == f"peak {kind}"
            assert (sample.before, sample.after) == (place, place + 2), "the peaks beside it, not others"
    # a peak between two rows of one kind serves both
    alike = World()
    run(alike, [Work(alike.work(name, 1.0), "float32", 1) for name in "abc"])
    assert sum(event == "peak float32" for event in alike.events) == 4


def _orders(seed: int) -> list[list[str]]:
    world = World()
    run(world, [Work(world.work(name, 1.0), "float32", 1) for name in "abcdefgh"], repeats=4, seed=seed)
    names = [event for event in world.events if not event.startswith("peak")]
    return [names[i : i + 8] for i in range(0, 32, 8)]


def test_the_order_is_shuffled_by_the_seed() -> None:
    orders = _orders(3)
    assert all(sorted(order) == list("abcdefgh") for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert orders == _orders(3)
    assert orders != _orders(4)


@pytest.mark.parametrize(("until", "expected"), [(1.0, 1), (19.0, 1), (20.0, 2), (49.0, 4), (50.0, 5), (1e9, 9)])
def test_the_limit_of_time(until: float, expected: int) -> None:
    world = World()
    samples = run(world, [Work(world.work("a", 10.0), "float32", 1)], repeats=9, until=until)
    assert len(samples[0]) == expected


def test_what_is_begun_is_told_before() -> None:
    world, heard = World(), []
    works = [Work(world.work(name, 1.0), "float32", 1) for name in "ab"]

    def begin(repeat: int, place: int, index: int, seconds: float) -> None:
        heard.append((repeat, place, seconds, len([event for event in world.events if event in "ab"])))
        world.events.append(f"begin {'ab'[index]}")

    measure(works, world.peak, 2, 9.0, 0.0, 0, begin, world.clock)
    assert heard == [(0, 0, 0.0, 0), (0, 1, 0.0, 1), (1, 0, 2.0, 2), (1, 1, 2.0, 3)]
    told = [event.removeprefix("begin ") for event in world.events if event.startswith("begin")]
    assert told == [event for event in world.events if event in "ab"]


def test_what_a_peak_does() -> None:
    peaks = Peaks(BenchConfig(peak_size=20, copy_bytes=4000, read_bytes=800), limit=1.0)
    for kind, amount in (("float32", 2 * 20**3), ("bf16", 2 * 20**3), ("copy", 8000), ("read", 800)):
        call, counted = peaks.call(kind)
        assert counted == amount
        assert peaks.call(kind)[0] is call, "made once"
        result = call()
        assert isinstance(result, torch.Tensor)
        assert result.numel() == {"copy": 1000, "read": 1}.get(kind, 400)
        assert result.count_nonzero() == result.numel()
    assert peaks.sizes == {"float32": 20, "bf16": 20, "copy": 4000, "read": 800}


@pytest.mark.parametrize(("fast", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_emulated_products_are_no_peak(monkeypatch: pytest.MonkeyPatch, fast: bool, dtype: torch.dtype) -> None:
    """Where bf16 products are emulated the backends multiply rounded factors in float32, and so does the peak."""
    monkeypatch.setattr("unrolled.kernels.linear.bf16.fast_products", lambda: fast)
    result = Peaks(BenchConfig(peak_size=20), limit=1.0).call("bf16")[0]()
    assert isinstance(result, torch.Tensor)
    assert result.dtype == dtype
    exact = Peaks(BenchConfig(peak_size=20), limit=1.0).call("float32")[0]()
    assert isinstance(exact, torch.Tensor)
    assert not torch.equal(result.float(), exact)


@pytest.mark.parametrize(
    ("kind", "speed", "size"),
    [
        ("float32", 200e9, 2048), ("float32", 20e9, 1024), ("float32", 0.23e9, 256), ("float32", 1e6, 256),
        ("copy", 20e9, 256_000_000), ("copy", 0.5e9, 64_000_000), ("copy", 1e6, 16_000_000),
    ],
)  # fmt: skip
def test_a_slow_machine_measures_a_smaller_peak(
    monkeypatch: pytest.MonkeyPatch, kind: str, speed: float, size: int
) -> None:
    world = World()
    monkeypatch.setattr("unrolled.bench.peak.make_peak", world.machine({kind: speed}))
    peaks = Peaks(BenchConfig(), limit=0.5, clock=world.clock)
    assert peaks.speed(kind) == pytest.approx(speed, rel=0.01)
    assert peaks.sizes == {kind: size}
    if speed > 1e6:
        assert world.now < 2.5, "finding the size and measuring once"


def test_a_peak_alone_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr("unrolled.bench.peak.make_peak", world.machine({"bf16": 0.23e9}))
    assert peak_speed(BenchConfig(), "bf16", clock=world.clock) == pytest.approx(0.23e9, rel=0.01)
    assert world.now < 2.0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system does not tell the peak of memory")
def test_peak_memory() -> None:
    size = 64 * 2**20
    if peak_memory(lambda: None) is None:
        pytest.skip("the peak of memory cannot be reset here")
    found = peak_memory(lambda: torch.ones(size // 4).sum())
    assert found is not None
    assert 0.9 * size < found < 1.5 * size
    held = torch.ones(size // 4)
    small = peak_memory(lambda: held[0].item())
    assert small is not None
    assert small < 0.2 * size, "what is there before the call is not counted"


def test_peak_memory_where_the_system_does_not_tell(tmp_path: Path) -> None:
    assert peak_memory(lambda: None, tmp_path / "none") is None
    (tmp_path / "status").write_text("VmRSS: 3 kB\n")
    assert peak_memory(lambda: None, tmp_path) is None


def test_the_clock_of_the_process_does_not_count_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the wall a call that sleeps takes so long, by the CPU nearly nothing."""
    monkeypatch.setattr("unrolled.bench.run.call_of", lambda *_: lambda: time.sleep(0.03))
    found = {}
    for clock in ("wall", "cpu"):
        small = {"widths": (8,), "batches": (2,), "windows": (4,), "peak_size": 16, "least_seconds": 1e-6}
        given = {**small, "cells": ("gru",), "backends": ("generic",), "peers": False, "clock": clock, "seconds": 1.5}
        record = run_bench(BenchConfig.parse({**given, "repeats": 1}))
        assert record.rows[0].seconds is not None
        found[clock] = record.rows[0].seconds.median
        assert ("CPU seconds" in " ".join(machine_lines(record))) == (clock == "cpu")
    assert found["wall"] >= 0.03 > 5 * found["cpu"]
