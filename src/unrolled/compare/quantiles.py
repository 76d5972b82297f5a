"""Quantiles of a mean whose variance has shares that are known with different degrees of freedom.

They are Cochran's (1964): the mean of those of Student's t, each weighted by its share. One t with Satterthwaite's
(1946) degrees of freedom is too narrow where there are few seeds and the text's share is small, since a share of seeds
that came out small by chance then looks well known: over 3 seeds, and a tenth as much from the text, 95 % intervals
cover 91.6 %, and 99.5 % ones, as Holm's method asks for, 97.3 %; Cochran's cover 95.1 and 99.2 (4,000 simulations).
"""

import importlib
import math
from collections.abc import Sequence
from typing import Any

from unrolled.core.errors import UnrolledError

__all__ = ["Shares", "critical", "satterthwaite", "special", "tail_of"]

Shares = Sequence[tuple[float, float]]
"""The shares of a variance, each with its degrees of freedom."""


def special() -> Any:
    """scipy's special functions. Raises UnrolledError where scipy, an extra, is not installed."""
    try:
        return importlib.import_module("scipy.special")
    except ImportError as error:
        raise UnrolledError(
            'the statistics of a comparison need scipy; install it with: pip install "unrolled[report]"'
        ) from error


def critical(shares: Shares, tail: float) -> float:
    """How many standard errors are exceeded with chance ``tail``, by Cochran's approximation."""
    total = sum(share for share, _ in shares)
    if total == 0:
        return 0.0
    return sum(share * -float(special().stdtrit(freedom, tail)) for share, freedom in shares if share > 0) / total


def tail_of(shares: Shares, t: float) -> float:
    """The chance of which ``t``, zero or more, is the :func:`critical` value."""
    if t == 0 or math.isinf(t):
        return 0.5 if t == 0 else 0.0
    # between the tails of the share with the most and with the fewest degrees of freedom
    ends = [math.log(max(float(special().stdtr(freedom, -t)), 1e-300)) for share, freedom in shares if share > 0]
    low, high = min(ends), max(ends)
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if critical(shares, math.exp(middle)) > t else (low, middle)
    return math.exp(high)


def satterthwaite(shares: Shares) -> float:
    """Degrees of freedom of the sum of shares; the least of theirs where all are zero."""
    squares = sum(share**2 / freedom for share, freedom in shares)
    return sum(share for share, _ in shares) ** 2 / squares if squares > 0 else min(f for _, f in shares)
