"""How many seeds show a difference, before and after a comparison: power of Student's t, noncentral."""

import math
from collections.abc import Callable

import numpy as np

from unrolled.compare.quantiles import Shares, critical, satterthwaite, special
from unrolled.compare.statistics import LEVEL, CrossedDifference

__all__ = ["POWER", "SD_CHARACTERS", "power_at", "power_of", "seeds_needed", "seeds_to_decide"]

POWER = 0.8
"""Chance of showing a difference that is there, as plans are asked to have it."""

SD_CHARACTERS = 0.006
"""Bits per character over seeds of small models of characters: what a plan assumes that has no pilot of its own."""

_MOST_SEEDS = 100_000
# in whose middles the distribution of the standard error is taken: power to 1e-4
_QUANTILES = (np.arange(1000) + 0.5) / 1000


def power_at(difference: float, sd: float, seeds: int, contrasts: int = 1, correlation: float | None = None) -> float:
    """Chance that two systems with ``seeds`` runs each are told apart by a two-sided test.

    Args:
        difference: of their means. sd: over the seeds of a system, in the same unit.
        contrasts: as many are tested, and the first step of Holm's method has to be passed.
        correlation: between the systems at equal seeds; None compares independent runs.
    """
    variance = sd**2 * 2 * (1 - (correlation or 0.0)) / seeds
    return _power(difference, [(variance, _freedom(seeds, correlation is not None))], contrasts)


def seeds_needed(
    difference: float, sd: float, contrasts: int = 1, correlation: float | None = None, power: float = POWER
) -> int | None:
    """The fewest seeds per system whose :func:`power_at` is ``power``; None for more than 100,000."""
    return _fewest(lambda seeds: power_at(difference, sd, seeds, contrasts, correlation) >= power)


def power_of(found: CrossedDifference, difference: float, contrasts: int = 1) -> float | None:
    """Chance that a comparison of just this kind shows a true ``difference``; None unless seeds are covered."""
    if not found.covers.startswith("seeds"):
        return None
    return _power(difference, found.shares, contrasts)


def seeds_to_decide(found: CrossedDifference, smallest: float | None, contrasts: int = 1) -> int | None:
    """Seeds per system that would decide what is undecided, on the same text.

    As many as show a true difference of ``smallest`` with 80 % power, and as many as decide if the difference stays as
    it was found; without ``smallest``, as many as show one as large as was found. What the text adds to the variance
    stays as it is, so that there may be no such number: None then, as for a single seed.
    """
    if found.seed_variance is None:
        return None
    away, tail = abs(found.difference), (1 - LEVEL) / contrasts / 2

    def shown(seeds: int) -> bool:
        return _power(away if smallest is None else smallest, _shares(found, seeds), contrasts) >= POWER

    def decided(seeds: int) -> bool:
        shares = _shares(found, seeds)
        error = math.sqrt(sum(share for share, _ in shares))
        equivalent = smallest is not None and away + critical(shares, 1 - LEVEL) * error < smallest
        return equivalent or away > critical(shares, tail) * error

    least = _fewest(shown)
    if smallest is None or least is None:
        return least
    staying = _fewest(decided)
    return None if staying is None else max(least, staying)


def _shares(found: CrossedDifference, seeds: int) -> Shares:
    """Of the variance that the same comparison has with so many seeds of each system."""
    of_seeds = (found.seed_variance or 0.0) / seeds, _freedom(seeds, found.paired)
    return [of_seeds, (found.text_variance, found.freedoms[1] or 1.0)]


def _freedom(seeds: int, paired: bool) -> float:
    return seeds - 1.0 if paired else 2.0 * seeds - 2


def _power(difference: float, shares: Shares, contrasts: int) -> float:
    """Of a variance whose shares have degrees of freedom of their own; that of their sum is Satterthwaite's."""
    variance = sum(share for share, _ in shares)
    if variance == 0:
        return float(difference != 0)
    functions, freedom = special(), satterthwaite(shares)
    least, away = critical(shares, (1 - LEVEL) / contrasts / 2), abs(difference) / math.sqrt(variance)
    # scipy's own noncentral t is NaN at many places; given the standard error that is found, t is normal
    found = np.sqrt(2 * functions.gammaincinv(freedom / 2, _QUANTILES) / freedom)
    return float((functions.ndtr(away - least * found) + functions.ndtr(-away - least * found)).mean())


def _fewest(enough: Callable[[int], bool]) -> int | None:
    """The least number from two on for which ``enough`` holds, which then holds for all larger ones."""
    high = 2
    while not enough(high):
        high *= 2
        if high > _MOST_SEEDS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
