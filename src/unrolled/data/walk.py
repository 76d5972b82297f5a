"""The way through a split: one column or several, window by window, with the places where a text begins."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

import numpy as np

from unrolled.core.errors import UsageError
from unrolled.data import TokenSplit

__all__ = ["Columns", "Progress", "windows"]

Progress = Callable[[int, int, float], None]
"""Called after each window with what is done, what there is to do, and the nats per token so far."""


class Columns(NamedTuple):
    """begins: where each column begins in the split. length: tokens per column. skip: of them, context at its start."""

    begins: np.ndarray
    length: int
    skip: int = 0

    @classmethod
    def cut(cls, split: TokenSplit, columns: int, limit: int | None = None, skip: int = 0) -> Self:
        """Equal columns of the split's first ``limit`` tokens; the tail that does not divide is left out.

        Raises:
            UsageError: fewer tokens than would give each column one to score.
        """
        total = len(split) if limit is None else min(limit, len(split))
        length = total // columns
        if length <= skip:
            raise UsageError(f"{total} tokens are too few for {columns} column(s); use fewer columns or more text.")
        return cls(np.arange(columns, dtype=np.int64) * length, length, skip)


def windows(
    split: TokenSplit, columns: Columns, window: int, line_ends: np.ndarray | None = None
) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """Per window: its position in the columns, ids (columns, time), and where a text begins (None: nowhere).

    Args:
        window: tokens of a column at once; the last window is shorter.
        line_ends: (V,) flags of the ids that end a line, after which a text begins, too; None where only sentences and
            documents of the corpus (``split.starts``) do.
    """
    begins = columns.begins.tolist()
    for low in range(columns.skip, columns.length, window):
        high = min(low + window, columns.length)
        ids = np.stack([split.ids(begin + low, begin + high) for begin in begins])
        reset = np.zeros(ids.shape, bool)
        if split.starts is not None:
            for row, begin in zip(reset, begins, strict=True):
                first, last = np.searchsorted(split.starts, [begin + low, begin + high])
                row[split.starts[first:last] - begin - low] = True
        if line_ends is not None:
            reset[:, 1:] |= line_ends[ids[:, :-1]]
            if low:
                before = np.concatenate([split.ids(begin + low - 1, begin + low) for begin in begins])
                reset[:, 0] |= line_ends[before]
        yield low, ids, reset if reset.any() else None
