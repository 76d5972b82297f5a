"""Runs whose models are measured."""

from functools import lru_cache

from unrolled.runs import Run

__all__ = ["opened"]


@lru_cache(maxsize=8)
def opened(path: str) -> Run:
    """A run, opened once for all rows that its model is measured in. Raises UsageError where there is none."""
    return Run(path, "cpu")
