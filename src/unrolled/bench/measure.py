"""Interleaved repetitions: every row once in each, the machine's peak measured directly before and after it."""

import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = ["Clock", "Sample", "Work", "measure", "timed"]

Clock = Callable[[], float]


class Work(NamedTuple):
    """call: what is timed. kind: of the peak beside it. amount: operations or bytes of one whole call. done: which
    share of the whole the calls came to since this was last asked; None where all are whole."""

    call: Callable[[], object]
    kind: str
    amount: float
    done: Callable[[], float] | None = None


class Sample(NamedTuple):
    """One row in one repetition: seconds of one whole call, and the peaks (a second) before and after."""

    seconds: float
    before: float
    after: float


def timed(call: Callable[[], object], least: float, clock: Clock = time.perf_counter) -> float:
    """Seconds of one call, the mean of as many as together take ``least`` seconds."""
    count, start = 0, clock()
    while True:
        call()
        count += 1
        taken = clock() - start
        if taken >= least:
            return taken / count


def measure(
    works: Sequence[Work],
    peak: Callable[[str], float],
    repeats: int,
    until: float,
    least: float,
    seed: int,
    begin: Callable[[int, int, int, float], None] = lambda repeat, place, index, seconds: None,
    clock: Clock = time.perf_counter,
) -> list[list[Sample]]:
    """Time every work in every repetition, in an order that is shuffled anew.

    Args:
        peak: measures the peak of a kind, a second. Between two rows of one kind one measurement serves both.
        until: a repetition that would end after this time of the clock is not begun, once there is one.
        least: seconds that a timed call takes at least, by repetition.
        begin: hears what is begun: the repetition, the place in it, the work, and what a repetition has taken (0 in
            the first).
    Returns:
        for each work its samples, as many as there were repetitions.
    """
    order, generator = list(range(len(works))), random.Random(seed)
    samples: list[list[Sample]] = [[] for _ in works]
    slowest = 0.0
    for repeat in range(repeats):
        start = clock()
        if repeat and start + slowest > until:
            break
        generator.shuffle(order)
        last: tuple[str, float] | None = None
        for place, index in enumerate(order):
            begin(repeat, place, index, slowest)
            work = works[index]
            before = last[1] if last is not None and last[0] == work.kind else peak(work.kind)
            taken = timed(work.call, least, clock)
            if work.done is not None:
                taken /= work.done()
            after = peak(work.kind)
            last = work.kind, after
            samples[index].append(Sample(taken, before, after))
        slowest = max(slowest, clock() - start)
    return samples
