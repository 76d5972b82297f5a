"""The measurement: plan, checks, warm-up, repetitions, record."""

import gc
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from unrolled.bench.check import cannot, fault
from unrolled.bench.config import BenchConfig
from unrolled.bench.decode import why_not_written
from unrolled.bench.figures import paired_ratio, share, spread
from unrolled.bench.material import Material
from unrolled.bench.measure import Clock, Sample, Work, measure
from unrolled.bench.peak import KINDS, Peaks, kind_of, peak_memory
from unrolled.bench.plan import PEER, PLAIN, REFERENCE, TORCH, Row, Sizes, peers_of, plan
from unrolled.bench.record import BenchRecord, PeakRecord, RowRecord
from unrolled.bench.subjects import amount_of, call_of, case_of, make_cell
from unrolled.core.errors import UsageError
from unrolled.core.record import environment
from unrolled.kernels.cpu import instruction_sets, why_no_library

__all__ = ["ratios", "run_bench"]

# The share of the time that the peaks may take where there is time for three repetitions only.
_FOR_PEAKS, _WANTED = 0.25, 3

Tell = Callable[[str, float], None]

# Which part of all the work is done at the end of each part, as a bar shows it.
_CHECKED, _WARM = 0.1, 0.2


class _Verdict(NamedTuple):
    """amount: of one call; 0 where the row is no measurement at all."""

    status: str
    reason: str | None
    amount: int


def run_bench(
    config: BenchConfig,
    tell: Tell = lambda what, done: None,
    spent: float = 0.0,
    clock: Clock | None = None,
) -> BenchRecord:
    """Check, then measure.

    Args:
        tell: hears of each thing that is begun, and which share of everything is done.
        spent: seconds of the budget that have gone by already. clock: in place of the config's.
    Returns:
        the record; rows whose check failed, or whose backend cannot serve them, have no figures.
    Raises:
        UsageError: a cell's options do not go with a width.
    """
    clock = clock or (time.process_time if config.clock == "cpu" else time.perf_counter)
    began = clock() - spent
    # a width that does not suit a cell is refused before anything is checked
    cells = [cell for cell in config.cells if not isinstance(cell, str)] if config.run is None else []
    built = {cell: make_cell(cell, width) for width in sorted(config.widths, reverse=True) for cell in cells}
    rows = plan(config, lambda cell: built[cell])
    smallest = Sizes(min(row.sizes.width for row in rows), min(config.batches), min(config.windows))
    until = began + config.budget(len(rows))
    material = Material(torch.float32)
    verdicts = _check(rows, smallest, tell, material)
    measured = [row for row in rows if verdicts[row].status == "measured"]
    works, memory = _warm_up(measured, until, tell, clock, material)

    calls = min(config.repeats, _WANTED) * (len(works) + 1)
    peaks = Peaks(config, _FOR_PEAKS * config.budget(len(rows)) / calls, clock)
    found: dict[str, list[float]] = {kind: [] for kind in KINDS if kind in {work.kind for work in works}}
    for kind in found:
        tell(f"finding the size of a measurement of the peak, {kind}", _WARM)
        peaks.call(kind)

    def peak(kind: str) -> float:
        found[kind].append(peaks.speed(kind))
        return found[kind][-1]

    def begin(repeat: int, place: int, index: int, seconds: float) -> None:
        done = _WARM + (1 - _WARM) * (repeat * len(works) + place) / (config.repeats * len(works))
        # how long a repetition takes is known after the first
        later = f"repetition {repeat + 1} of at most {config.repeats}, which takes about {seconds:.1f} seconds"
        tell(later if repeat else f"timing {_title(measured[index])}", done)

    start = clock()
    samples = measure(works, peak, config.repeats, until, config.least_seconds, config.seed, begin, clock)
    taken = clock() - start
    by_row = dict(zip(measured, samples, strict=True))
    return BenchRecord(
        config=config.model_dump(mode="json"),
        environment=environment(),
        native=why_no_library() or instruction_sets()[0],
        instruction_sets=tuple(instruction_sets()),
        repetitions=len(samples[0]) if samples else 0,
        wall_seconds=taken,
        peaks={kind: _peak(kind, peaks.sizes[kind], values) for kind, values in found.items()},
        rows=tuple(_record(row, verdicts[row], by_row, memory.get(row)) for row in rows),
    )


def _title(row: Row) -> str:
    width, batch, window = row.sizes
    return f"{row.name}, {row.backend}, {row.precision}, width {width}, batch {batch}, window {window}, {row.mode}"


def _warm_up(
    rows: list[Row], until: float, tell: Tell, clock: Clock, material: Material
) -> tuple[list[Work], dict[Row, int | None]]:
    """Call every row once, and once more to measure its memory where the time allows that beside one repetition."""
    works, seconds = [], []
    for i, row in enumerate(rows):
        tell(f"warming up {_title(row)}", _CHECKED + (_WARM - _CHECKED) * i / len(rows))
        case = case_of(row, row.sizes, material)
        call = call_of(case, row.mode, material)
        works.append(Work(call, kind_of(row), amount_of(row), case.done))
        start = clock()
        call()
        seconds.append(clock() - start)
    gc.collect()  # what the checks left
    memory = {}
    for row, work, taken in zip(rows, works, seconds, strict=True):
        if clock() + taken + sum(seconds) < until:
            tell(f"measuring the memory of {_title(row)}", _WARM)
            memory[row] = peak_memory(work.call)
        if work.done is not None:
            work.done()  # what is timed counts from here
    return works, memory


def _check(rows: list[Row], smallest: Sizes, tell: Tell, material: Material) -> dict[Row, _Verdict]:
    """Each subject, backend and precision is checked once, for all sizes and passes."""
    done: dict[Row, tuple[str, str | None]] = {}
    verdicts = {}
    for i, row in enumerate(rows):
        key = row._replace(sizes=smallest, mode="decode" if row.mode == "decode" else "", way="")
        reason = cannot(row)
        if reason is not None:
            verdicts[row] = _Verdict("cannot", reason, 0)
            continue
        if key not in done:
            done[key] = _status(row._replace(way=""), smallest, lambda what, i=i: tell(what, _CHECKED * i / len(rows)))
        found = done[key]
        if row.way and found[0] == "measured":
            tell(f"checking {row.name}, {row.backend}, {row.precision}", _CHECKED * i / len(rows))
            reason = why_not_written(row, row.sizes, material)
            found = found if reason is None else ("cannot", reason)
        verdicts[row] = _Verdict(*found, amount_of(row))
    return verdicts


def _status(row: Row, smallest: Sizes, tell: Callable[[str], None]) -> tuple[str, str | None]:
    """Whether a row is measured, and why not."""
    if row.backend in (REFERENCE, TORCH, PEER, PLAIN):  # compared with, or (torch's) another function
        return "measured", None
    tell(f"checking {row.name}, {row.backend}, {row.precision}")
    try:
        reason = fault(row, smallest)
    except UsageError as error:
        return "cannot", str(error)
    return ("measured", None) if reason is None else ("refused", reason)


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
    amount = verdict.amount
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
        "run": row.run,
        "way": row.way,
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


def _peak(kind: str, size: int, values: list[float]) -> PeakRecord:
    scaled = [value / 1e9 for value in values]
    return PeakRecord(
        unit=KINDS[kind],
        size=size,
        median=statistics.median(scaled),
        lowest=min(scaled),
        highest=max(scaled),
        measured=len(scaled),
    )
