"""Figures from times: plain arithmetic on plain numbers."""

import statistics
from collections.abc import Sequence

from pydantic import Field

from unrolled.core.config import Config

__all__ = ["Spread", "paired_ratio", "share", "spread"]


class Spread(Config):
    """A median with its quartiles."""

    median: float = Field(description="half of the values lie below")
    lower: float = Field(description="a quarter lies below")
    upper: float = Field(description="a quarter lies above")


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles (interpolated between values) of at least one value."""
    if len(values) == 1:
        return Spread(median=values[0], lower=values[0], upper=values[0])
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median=median, lower=lower, upper=upper)


def share(amount: float, seconds: float, before: float, after: float) -> float:
    """What was done a second, as a share of the mean of the peaks measured before and after."""
    return amount / seconds / ((before + after) / 2)


def paired_ratio(own: Sequence[float], other: Sequence[float], own_amount: float = 1, other_amount: float = 1) -> float:
    """How many times faster ``own`` is: its speed over the other's in the same repetition, the median of all.

    Args:
        own, other: seconds in each repetition. own_amount, other_amount: what was done in that time.
    """
    speeds = [(own_amount / mine) / (other_amount / theirs) for mine, theirs in zip(own, other, strict=True)]
    return statistics.median(speeds)
