"""Means with their intervals."""

import math

import numpy as np

__all__ = ["mean_intervals"]

_NORMAL_95 = 1.959964


def mean_intervals(values: np.ndarray) -> list[dict[str, float]]:
    """Of each column of (n, k), n >= 2: ``mean``, ``low`` and ``high`` of its 95 % interval, normal approximation."""
    mean, error = values.mean(0), _NORMAL_95 * values.std(0, ddof=1) / math.sqrt(len(values))
    return [{"mean": float(m), "low": float(m - e), "high": float(m + e)} for m, e in zip(mean, error, strict=True)]
