"""Plan, run and record."""

import itertools
import re
from types import SimpleNamespace
from typing import Any

import pytest

from unrolled.bench import BenchConfig, BenchRecord, bench_markdown, bench_table, machine_lines, reasons, run_bench
from unrolled.bench.measure import Sample
from unrolled.bench.peak import amount_of_peak
from unrolled.bench.plan import Row, Sizes, label, peers_of, plan
from unrolled.bench.run import ratios
from unrolled.bench.subjects import amount_of, make_cell
from unrolled.cells import CELLS
from unrolled.core.errors import UsageError
from unrolled.kernels import cell_loop

SMALL: dict[str, Any] = {
    "widths": (8,), "batches": (2,), "windows": (4,), "repeats": 2,
    "peak_size": 16, "copy_bytes": 400, "least_seconds": 1e-6,
}  # fmt: skip


def rows_of(**options: Any) -> list[Row]:
    return plan(BenchConfig.parse({**SMALL, **options}), lambda config: make_cell(config, 8))


def named(rows: list[Row]) -> list[tuple[str, str, str]]:
    return [(row.subject, row.backend, row.precision) for row in rows]


def test_plan_and_peers() -> None:
    rows = rows_of(cells=("lstm", "mgru"), backends=("generic",))
    assert named(rows) == [
        ("lstm", "generic", "float32"),
        ("lstm", "reference", "float32"),
        ("lstm", "published", "float32"),
        ("torch.nn.LSTM", "torch.nn", "float32"),
        ("mgru", "generic", "float32"),
        ("mgru", "reference", "float32"),
        ("mgru", "published", "float32"),
        ("torch.nn.GRU", "torch.nn", "float32"),
    ]
    assert len(rows_of(cells=("lstm", "mlstm"), backends=("generic",))) == 7, "one torch.nn.LSTM serves both"
    assert named(rows_of(cells=("lstm",), backends=("reference",), peers=False)) == [("lstm", "reference", "float32")]
    sizes = rows_of(cells=("lstm",), backends=("generic",), peers=False, widths=(8, 9), windows=(1, 2), batches=(1, 3))
    assert len({row.sizes for row in sizes}) == len(sizes) == 8
    assert [
        row.mode for row in rows_of(cells=("rnn",), backends=("generic",), peers=False, passes=("step", "both"))
    ] == [
        "step",
        "both",
    ]


def test_backends_where_none_is_named() -> None:
    found = [backend for _, backend, _ in named(rows_of(cells=("lstm",), peers=False))]
    assert found == [
        name for name in make_cell(CELLS["lstm"].Config(), 8).backends() if name not in ("reference", "newton")
    ]
    assert {"generic", "fused", "torch"} <= set(found)
    assert ("diag_scan", "reference", "float32") in named(rows_of(cells=("diag_scan",)))
    assert ("diag_scan", "reference", "float32") not in named(rows_of(cells=("diag_scan",), peers=False))
    assert ("qrnn", "published", "float32") not in named(rows_of(cells=("qrnn",))), "it has no step"


def test_bf16_is_compared_with_float32() -> None:
    row = rows_of(cells=("lstm",), backends=("generic",), precisions=("bf16",))[0]
    assert named([row]) == [("lstm", "generic", "bf16")]
    peers = peers_of(row)
    assert named([peers[name] for name in ("reference", "published", "torch.nn", "float32")]) == [
        ("lstm", "reference", "bf16"),
        ("lstm", "published", "bf16"),
        ("torch.nn.LSTM", "torch.nn", "float32"),
        ("lstm", "generic", "float32"),
    ]


def test_label() -> None:
    assert label(CELLS.parse("mogrifier")) == "mogrifier"
    config = CELLS.parse({"name": "mogrifier", "rounds": 4, "cell": {"name": "gru"}})
    assert label(config) == "mogrifier(cell=gru, rounds=4)"


def test_ratios() -> None:
    sizes = Sizes(8, 2, 4)
    row = Row("mlstm", CELLS.parse("mlstm"), "generic", "float32", sizes, "both")
    torch_row = Row("torch.nn.LSTM", None, "torch.nn", "float32", sizes, "both")
    times = {
        row: [1.0, 2.0, 4.0],
        row._replace(backend="reference"): [2.0, 4.0, 8.0],
        row._replace(backend="published"): [3.0, 6.0, 12.0],
        torch_row: [1.0, 2.0, 4.0],
    }
    # at equal widths the mLSTM has a quarter more arithmetic than the LSTM
    assert ratios(row, times) == pytest.approx({"reference": 2.0, "published": 3.0, "torch.nn": 1.25})
    assert ratios(torch_row, times) == {}
    low = row._replace(precision="bf16")
    assert ratios(low, {**times, low: [0.5, 1.0, 2.0]}) == pytest.approx({"float32": 2.0, "torch.nn": 2.5})


def test_a_run() -> None:
    heard = []
    options = {**SMALL, "cells": ("lstm", "diag_scan"), "passes": ("both", "step"), "precisions": ("float32", "bf16")}
    config = BenchConfig.parse(options)
    record = run_bench(config, lambda *what: heard.append(what))
    assert [done for _, done in heard] == sorted(done for _, done in heard)
    assert all(0 <= done < 1 for _, done in heard)
    assert BenchRecord.parse({key: getattr(record, key) for key in BenchRecord.model_fields}) == record
    by_key = {(row.subject, row.backend, row.precision, row.mode): row for row in record.rows}
    assert len(by_key) == len(record.rows)
    for row in record.rows:
        if row.status != "measured":
            assert (row.status, row.seconds, row.share, row.times, row.faster_than) == ("cannot", None, None, (), {})
            continue
        assert row.seconds is not None
        assert row.share is not None
        assert len(row.times) == record.repetitions == 2
        assert row.seconds.lower <= row.seconds.median <= row.seconds.upper
        assert row.tokens_per_second == pytest.approx(2 * 4 / row.seconds.median)
    low = by_key["lstm", "generic", "bf16", "both"]
    assert set(low.faster_than) == {"reference", "published", "torch.nn", "float32"}
    assert set(by_key["lstm", "reference", "float32", "step"].faster_than) == {"published", "torch.nn"}
    assert set(by_key["diag_scan", "inplace", "float32", "both"].faster_than) == {"reference", "published"}
    assert by_key["lstm", "torch", "bf16", "both"].status == "cannot"
    assert by_key["diag_scan", "inplace", "float32", "step"].status == "cannot"
    told = {what for what, _ in heard}
    assert {
        "checking lstm, generic, bf16",
        "warming up lstm, generic, bf16, width 8, batch 2, window 4, both",
        "timing lstm, generic, bf16, width 8, batch 2, window 4, both",
        "finding the size of a measurement of the peak, copy",
        "repetition 2 of at most 2, which takes about 0.0 seconds",
    } < {re.sub(r"about \S+", "about 0.0", what) for what in told}
    assert set(record.peaks) == {"float32", "bf16", "copy"}, "nothing here is bound by reading"
    for kind, peak in record.peaks.items():
        assert 0 < peak.lowest <= peak.median <= peak.highest
        assert peak.measured > 2
        assert peak.size == (400 if kind == "copy" else 16)
    text = "\n".join(machine_lines(record))
    assert record.environment["cpu"] in text
    assert "threads: 1" in text
    heads, rows = bench_table(record)
    assert all(len(cells) == len(heads) for cells in rows)
    assert len(rows) == len(record.rows)
    assert any("cannot run lstm: it computes in float32, not bf16" in line for line in reasons(record))
    page = bench_markdown(record).splitlines()
    assert sum(line.startswith("| ") for line in page) == len(rows) + 2
    assert len({line.count("|") for line in page if line.startswith("| ")}) == 1


def test_figures_from_given_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """rnn by the generic backend, its reference, the published loop, torch's LSTM; 2 x 4 tokens of width 8."""
    times = ([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [4.0, 8.0, 12.0], [1.0, 2.0, 3.0])

    def given(works: Any, peak: Any, *rest: Any) -> list[list[Sample]]:
        peak("float32")
        return [[Sample(seconds, before=90.0, after=110.0) for seconds in row] for row in times]

    monkeypatch.setattr("unrolled.bench.run.measure", given)
    record = run_bench(BenchConfig.parse({**SMALL, "cells": ("rnn",), "backends": ("generic",)}))
    amount = 3 * 8 * 2 * 8 * (8 + 8)
    row, reference, _, torch_row = record.rows
    assert (row.amount, torch_row.amount, record.repetitions) == (amount, 4 * amount, 3)
    assert row.seconds is not None
    assert row.share is not None
    assert torch_row.share is not None
    assert row.seconds.model_dump() == {"median": 2.0, "lower": 1.5, "upper": 2.5}
    assert row.share.median == pytest.approx(amount / 2.0 / 100.0)
    assert torch_row.share.median == pytest.approx(4 * row.share.median)
    assert row.tokens_per_second == 4.0
    assert row.times == (1.0, 2.0, 3.0)
    assert row.faster_than == pytest.approx({"reference": 2.0, "published": 4.0, "torch.nn": 0.25})
    assert reference.faster_than == pytest.approx({"published": 2.0, "torch.nn": 0.125})
    shown = dict(zip(*(bench_table(record)[0], bench_table(record)[1][0]), strict=True))
    assert (shown["ms"], shown["quartiles"], shown["tokens/s"]) == ("2000", "1500 to 2500", "4")
    assert (shown["x torch.nn, per operation"], shown["x reference"], shown["x published"]) == ("0.25", "2.00", "4.00")
    assert shown["share of peak"] == f"{amount / 200:.1%}"


def test_only_peaks_that_bound_a_row_are_measured() -> None:
    for name, options in {
        "float32": {"cells": ("rnn",)},
        "bf16": {"cells": ("rnn",), "precisions": ("bf16",)},
        "copy": {"cells": ("diag_scan",)},
        "read": {"cells": ("rnn",), "passes": ("decode",), "vocabulary": 5},
    }.items():
        peers = name == "read"  # the model as it is, which needs no library
        config = BenchConfig.parse({**SMALL, "backends": ("reference",), "peers": peers, "repeats": 5, **options})
        peaks = run_bench(config).peaks
        assert list(peaks) == [name]
        assert peaks[name].measured >= 10


class SlowMachine:
    """A clock that only work moves on: products of 20 GFLOP/s, bf16 emulated at 0.23, reading at 0.1 GB/s."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, speed: float = 20e9):
        self.now, self.memory = 0.0, 0
        speeds = {"float32": speed, "bf16": 0.23e9, "read": 1e8, "copy": 1e9}

        def make(kind: str, size: int) -> Any:
            amount = amount_of_peak(kind, size)
            return lambda: self.spend(amount / speeds[kind]), amount

        def call_of(case: Any, *rest: Any) -> Any:
            return lambda: self.spend(amount_of(case.row) / speeds["float32"])

        def peak_memory(call: Any) -> None:
            self.memory += 1
            call()

        def fault(*arguments: Any) -> None:
            self.spend(1.0)

        monkeypatch.setattr("unrolled.bench.run.case_of", lambda row, *_: SimpleNamespace(row=row, done=None))
        patched = {"call_of": call_of, "fault": fault, "peak_memory": peak_memory}
        for name, value in patched.items():
            monkeypatch.setattr(f"unrolled.bench.run.{name}", value)
        monkeypatch.setattr("unrolled.bench.peak.make_peak", make)

    def spend(self, seconds: float) -> None:
        self.now += seconds

    def run(self, **options: Any) -> tuple[BenchRecord, list[tuple[float, str]]]:
        """The record, and what was told when."""
        told: list[tuple[float, str]] = []
        config = BenchConfig.parse({"cells": ("lstm",), "widths": (256,), **options})
        record = run_bench(config, lambda what, done: told.append((self.now, what)), clock=lambda: self.now)
        assert all(row.status != "refused" for row in record.rows)
        return record, told


@pytest.mark.parametrize("precisions", [("float32",), ("bf16",), ("float32", "bf16")])
def test_a_table_of_one_cell_ends_in_time_on_a_slow_machine(
    monkeypatch: pytest.MonkeyPatch, precisions: tuple[str, ...]
) -> None:
    machine = SlowMachine(monkeypatch)
    record, told = machine.run(precisions=precisions)
    assert machine.now <= max(60, 8 * len(record.rows))
    assert record.repetitions >= 2
    assert set(record.peaks) == {"float32", *precisions}, "torch's module is in float32 always"
    assert told[0][0] < 5
    assert max(later - earlier for (earlier, _), (later, _) in itertools.pairwise(told)) < 5


def test_the_seconds_are_those_of_the_whole_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, repeats in ((1000.0, {7}), (30.0, {3, 4, 5})):  # fewer rows without the native library
        machine = SlowMachine(monkeypatch)
        record, _ = machine.run(seconds=seconds)
        assert machine.now <= seconds
        assert record.repetitions in repeats
        assert machine.memory == len(record.rows)
    # no time at all: every row is checked, called once and timed once, and memory is not measured
    machine = SlowMachine(monkeypatch, speed=2e9)
    record, _ = machine.run(seconds=1e-9)
    assert (record.repetitions, machine.memory) == (1, 0)
    assert all(len(row.times) == 1 and row.memory is None for row in record.rows)
    assert record.peaks["float32"].size == 256
    # what the command took before counts too
    machine = SlowMachine(monkeypatch)
    config = BenchConfig.parse({"cells": ("lstm",), "widths": (256,), "seconds": 1000.0})
    assert run_bench(config, spent=990.0, clock=lambda: machine.now).repetitions == 1


def test_a_refused_row_has_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = cell_loop.BACKENDS["generic"]

    def wrong(*arguments: Any) -> Any:
        y, final = right.run(*arguments)
        return y * 1.01, final

    monkeypatch.setitem(cell_loop.BACKENDS, "generic", right._replace(run=wrong))
    record = run_bench(BenchConfig.parse({**SMALL, "cells": ("mgru",), "backends": ("generic",)}))
    status = {row.backend: (row.status, row.seconds is None) for row in record.rows}
    assert status == {
        "generic": ("refused", True),
        "reference": ("measured", False),
        "published": ("measured", False),
        "torch.nn": ("measured", False),
    }
    assert "mgru, generic, float32: refused: output differs" in reasons(record)[0]
    assert bench_table(record)[1][0][7:] == ["refused", *[""] * (len(bench_table(record)[0]) - 8)]


def test_options_that_do_not_go_with_a_width() -> None:
    cell = {"name": "mgru", "reset": "before", "factor": 9}
    with pytest.raises(UsageError, match="reset = before"):
        run_bench(BenchConfig.parse({**SMALL, "cells": (cell,)}))


def test_every_width_is_looked_at_before_anything_is_checked() -> None:
    """Also where a backend is named, and the width is not the smallest."""
    heard: list[str] = []
    config = BenchConfig.parse({**SMALL, "cells": ("rwkv7",), "backends": ("native",), "widths": (64, 80)})
    with pytest.raises(UsageError, match="the width of a rwkv7 is a multiple of 64 here, not 80"):
        run_bench(config, lambda what, done: heard.append(what))
    assert heard == []
