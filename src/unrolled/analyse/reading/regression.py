r"""Least squares, and what a part of the predictors is worth in texts that were left out.

With y = X b + e and e normal, b minimises the sum of squares and the variance is its mean over the n words fitted
(maximum likelihood). The log-likelihood of a word that was not fitted is

.. math::
    \log N(y; x b, s^2) = -\tfrac12 \log(2 \pi s^2) - (y - x b)^2 / (2 s^2)

and the gain of a predictor is the mean difference with and without it, in nats per word (Goodkind and Bicknell 2018;
Wilcox et al. 2020, who leave words out; here whole texts are).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unrolled.core.errors import UsageError

__all__ = ["Interval", "LeastSquares", "held_out", "lagged", "mean_over", "solve"]

_DRAWS, _SEED, _FEWEST_TEXTS = 4000, 20180101, 5


class LeastSquares(NamedTuple):
    """A fit, in float64.

    coefficients, errors: (k,) and their standard errors (from the unbiased variance). variance: mean of the squares.
    log_likelihood: of all words fitted, nats.
    """

    coefficients: np.ndarray
    errors: np.ndarray
    variance: float
    log_likelihood: float

    def nats(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Log-likelihood of each of some words, (n,). x: (n, k). y: (n,)."""
        return -0.5 * (math.log(2 * math.pi * self.variance) + (y - x @ self.coefficients) ** 2 / self.variance)


def solve(x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> LeastSquares:
    """Fit y by x, by a QR decomposition of the columns at unit length.

    Args:
        x: (n, k), the first column ones. y: (n,). names: of the columns, for messages.
    Raises:
        UsageError: no more words than columns, a column that the others give, or a measure that they give exactly.
    """
    n, k = x.shape
    if n <= k:
        raise UsageError(f"{n:,} words are too few for {k} predictors; give more words, or a smaller --spillover.")
    scale = np.sqrt((x * x).sum(0))
    q, r = np.linalg.qr(x / np.where(scale > 0, scale, 1.0))
    for j, name in enumerate(names):
        # what is left of a column beside those before it
        if abs(r[j, j]) < 1e-9:
            raise UsageError(f"{name} is given by the other predictors of these words, so it has no effect of its own.")
    inverse = np.linalg.solve(r, np.eye(k))
    coefficients = inverse @ (q.T @ y)
    squares = float(((y - (x / scale) @ coefficients) ** 2).sum())
    variance = squares / n
    if variance <= 1e-24 * max(1.0, float((y * y).mean())):
        raise UsageError("the measure is the same for all words, or the predictors give it exactly; name another one.")
    errors = np.sqrt((inverse**2).sum(1) * squares / (n - k))
    log_likelihood = -0.5 * n * (math.log(2 * math.pi * variance) + 1)
    return LeastSquares(coefficients / scale, errors / scale, variance, log_likelihood)


def lagged(values: Sequence[np.ndarray], back: int) -> list[np.ndarray]:
    """Of each text the values (n, k) of a word and of the 1 to ``back`` words before it, (n - back, k (back + 1)).

    The first ``back`` words of a text have none before them and are left out. Columns: the word's own, then one back...
    """
    found = []
    for text in values:
        n = max(0, len(text) - back)
        found.append(np.concatenate([text[back - lag : back - lag + n] for lag in range(back + 1)], 1))
    return found


def held_out(
    predictors: Sequence[np.ndarray], measures: Sequence[np.ndarray], folds: int, names: Sequence[str]
) -> list[np.ndarray]:
    """Log-likelihood of every word of every text by a fit to the texts of the other folds.

    Args:
        predictors: (n, k) of each text, ones first. measures: (n,) of each. folds: text i is left out in fold i mod
            folds.
    Returns:
        (n,) of each text, nats.
    """
    found: list[np.ndarray] = [np.zeros(0)] * len(measures)
    for fold in range(folds):
        others = [i for i in range(len(measures)) if i % folds != fold]
        fit = solve(
            np.concatenate([predictors[i] for i in others]), np.concatenate([measures[i] for i in others]), names
        )
        for i in range(fold, len(measures), folds):
            found[i] = fit.nats(predictors[i], measures[i])
    return found


class Interval(NamedTuple):
    """A mean per word with its 95 % bootstrap interval; low and high are None where there are too few texts."""

    mean: float
    low: float | None
    high: float | None


def mean_over(texts: Sequence[np.ndarray], by: str = "texts") -> Interval:
    """Mean over the words of all texts, and the percentile interval over redrawn texts, or over redrawn words.

    Words of a text hang together (its story, its readers), so whole texts are drawn unless ``by`` is words. Fewer than
    five texts give no interval.
    """
    values = np.concatenate(texts)
    mean, rng = float(values.mean()), np.random.default_rng(_SEED)
    if by == "words":
        means = np.array([values[rng.integers(0, len(values), len(values))].mean() for _ in range(_DRAWS)])
    else:
        if len(texts) < _FEWEST_TEXTS:
            return Interval(mean, None, None)
        sums, counts = np.array([text.sum() for text in texts]), np.array([len(text) for text in texts])
        drawn = rng.multinomial(len(texts), np.full(len(texts), 1 / len(texts)), _DRAWS)
        means = (drawn @ sums) / (drawn @ counts)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(mean, float(low), float(high))
