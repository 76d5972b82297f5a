"""The measurement: plan, checks, warm-up, repetitions, record."""

import gc
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from unrolled.bench.check import cannot, fault
from unrolled.bench.config import BenchConfig
from unrolled.bench.figures import paired_ratio, share, spread
from unrolled.bench.material import Material
from unrolled.bench.measure import Sample, Work, measure, timed
from unrolled.bench.peak import KINDS, Peaks, kind_of, peak_memory
from unrolled.bench.plan import PLAIN, REFERENCE, TORCH, Row, Sizes, peers_of, plan
from unrolled.bench.record import BenchRecord, PeakRecord, RowRecord
from unrolled.bench.subjects import amount_of, call_of, case_of, make_cell
from unrolled.core.errors import UsageError
from unrolled.core.record import environment
from unrolled.kernels.cpu import instruction_sets, why_no_library

__all__ = ["ratios", "run_bench"]

# Measurements of a peak that no row is bound by, for the record.
_ASIDE = 3

Advance = Callable[[str, int, int], None]


class _Verdict(NamedTuple):
    status: str
    reason: str | None = None


def run_bench(config: BenchConfig, advance: Advance = lambda what, done, total: None) -> BenchRecord:
    """Check, then measure.

    Args:
        advance: hears what is being done, how much of it is done, and of how much.
    Returns:
        the record; rows whose check failed, or whose backend cannot serve them, have no figures.
    Raises:
        UsageError: a cell's options do not go with a width.
    """
    smallest = Sizes(min(config.widths), min(config.batches), min(config.windows))
    rows = plan(config, lambda cell: make_cell(cell, smallest.width))
    verdicts = _check(rows, smallest, advance)
    material = Material(torch.float32)
    measured = [row for row in rows if verdicts[row].status == "measured"]
    works = [
        Work(call_of(case_of(row, row.sizes, material), row.mode, material), kind_of(row), amount_of(row))
        for row in measured
    ]
    memory = {}
    gc.collect()  # what the checks left
    for i, (row, work) in enumerate(zip(measured, works, strict=True)):
        work.call()
        memory[row] = peak_memory(work.call)
        advance("warming up", i + 1, len(works))

    peaks, found = Peaks(config), {kind: [] for kind in KINDS}

    def peak(kind: str) -> float:
        call, amount = peaks.call(kind)
        found[kind].append(amount / timed(call, config.least_seconds))
        return found[kind][-1]

    for kind in KINDS:
        peaks.call(kind)[0]()
        if kind not in {work.kind for work in works}:
            for _ in range(_ASIDE):
                peak(kind)
    start = time.perf_counter()
    samples = measure(
        works, peak, config.repeats, config.seconds, config.least_seconds, config.seed,
        lambda done, total: advance("measuring", done, total),
    )  # fmt: skip
    taken = time.perf_counter() - start
    by_row = dict(zip(measured, samples, strict=True))
    return BenchRecord(
        config=config.model_dump(mode="json"),
        environment=environment(),
        native=why_no_library() or instruction_sets()[0],
        instruction_sets=tuple(instruction_sets()),
        repetitions=len(samples[0]) if samples else 0,
        wall_seconds=taken,
        peaks={kind: _peak(kind, values) for kind, values in found.items()},
        rows=tuple(_record(row, verdicts[row], by_row, memory.get(row)) for row in rows),
    )


def _check(rows: list[Row], smallest: Sizes, advance: Advance) -> dict[Row, _Verdict]:
    """Each subject, backend and precision is checked once, for all sizes and passes."""
    done: dict[Row, _Verdict] = {}
    verdicts = {}
    for i, row in enumerate(rows):
        key = row._replace(sizes=smallest, mode="decode" if row.mode == "decode" else "")
        reason = cannot(row)
        if reason is None and key not in done:
            done[key] = _verdict(row, smallest)
        verdicts[row] = done[key] if reason is None else _Verdict("cannot", reason)
        advance("checking", i + 1, len(rows))
    return verdicts


def _verdict(row: Row, smallest: Sizes) -> _Verdict:
    if row.backend in (REFERENCE, TORCH, PLAIN):  # compared with, or (torch.nn) another function than the cell
        return _Verdict("measured")
    try:
        reason = fault(row, smallest)
    except UsageError as error:
        return _Verdict("cannot", str(error))
    return _Verdict("measured") if reason is None else _Verdict("refused", reason)


def ratios(row: Row, times: dict[Row, list[float]]) -> dict[str, float]:
    """How many times faster than its measured peers a row is; beside torch's module by arithmetic a second."""
    found = {}
    for name, other in peers_of(row).items():
        if other in times:
            amounts = (amount_of(row), amount_of(other)) if name == TORCH else (1, 1)
            found[name] = paired_ratio(times[row], times[other], *amounts)
    return found


def _record(row: Row, verdict: _Verdict, samples: dict[Row, list[Sample]], memory: int | None) -> RowRecord:
    width, batch, window = row.sizes
    amount = 0 if cannot(row) is not None else amount_of(row)
    described = {
        "name": row.name,
        "subject": row.subject,
        "config": None if row.config is None else row.config.model_dump(mode="json"),
        "backend": row.backend,
        "precision": row.precision,
        "width": width,
        "batch": batch,
        "window": window,
        "mode": row.mode,
        "layers": row.layers,
        "vocabulary": row.vocabulary,
        "status": verdict.status,
        "reason": verdict.reason,
        "amount": amount,
    }
    if verdict.status != "measured":
        return RowRecord.parse(described)
    own = samples[row]
    times = [one.seconds for one in own]
    figures = {
        "seconds": spread(times),
        "share": spread([share(amount, *one) for one in own]),
        "tokens_per_second": batch * window / statistics.median(times),
        "faster_than": ratios(row, {other: [one.seconds for one in found] for other, found in samples.items()}),
        "memory": memory,
        "times": tuple(times),
    }
    return RowRecord.parse({**described, **figures})


def _peak(kind: str, values: list[float]) -> PeakRecord:
    scaled = [value / 1e9 for value in values]
    return PeakRecord(
        unit=KINDS[kind],
        median=statistics.median(scaled),
        lowest=min(scaled),
        highest=max(scaled),
        measured=len(scaled),
    )
