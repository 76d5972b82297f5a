"""Batches of labelled rows: of similar length, padded on the left, made from their numbers alone."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unrolled.core.random import RandomStreams
from unrolled.data.labelled.base import LabelledSplit
from unrolled.data.stream import Window

__all__ = ["ByLength", "LabelledBatches", "padded"]

_POOL = 50
"""Batches among whose rows those of similar length are put together."""


def padded(rows: Sequence[np.ndarray], pad: int = 0) -> tuple[Tensor, Tensor]:
    """Rows side by side, (rows, time) ids or (rows, time, channels) frames, and a boolean (rows, time) that is true at
    each row's first step. What stands before it is ``pad``, or zeros."""
    time, first = max(len(row) for row in rows), rows[0]
    inputs = np.full((len(rows), time, *first.shape[1:]), pad if first.ndim == 1 else 0, first.dtype)
    reset = np.zeros((len(rows), time), bool)
    for place, row in enumerate(rows):
        inputs[place, time - len(row) :] = row
        reset[place, time - len(row)] = True
    return torch.from_numpy(inputs), torch.from_numpy(reset)


class ByLength:
    """Which rows make a batch, without end. Each epoch is a permutation of the rows; among those of some batches, rows
    of similar length go together, and the batches come in an order of their own.

    Args:
        lengths: int64 (rows,). count: rows of a batch. streams: source of the order.
    """

    def __init__(self, lengths: np.ndarray, count: int, streams: RandomStreams):
        self._lengths, self._count, self._streams = lengths, min(count, len(lengths)), streams
        self._order: tuple[int, list[np.ndarray]] | None = None

    @property
    def full_batch(self) -> int:
        """Rows of a batch."""
        return self._count

    def windows_per_epoch(self) -> int:
        """Batches; the last one takes what is left."""
        return -(-len(self._lengths) // self._count)

    def tokens_per_epoch(self) -> int:
        """Rows, each of which is one target."""
        return len(self._lengths)

    def _batches(self, epoch: int) -> list[np.ndarray]:
        if self._order is None or self._order[0] != epoch:
            g = np.random.default_rng(self._streams.key("labelled order", epoch))
            order, made = g.permutation(len(self._lengths)), []
            for low in range(0, len(order), _POOL * self._count):
                pool = order[low : low + _POOL * self._count]
                pool = pool[np.argsort(self._lengths[pool], kind="stable")]
                parts = [pool[begin : begin + self._count] for begin in range(0, len(pool), self._count)]
                made += [parts[place] for place in g.permutation(len(parts))]
            self._order = epoch, made
        return self._order[1]

    def chosen(self, position: int) -> tuple[int, int, np.ndarray]:
        """Epoch, number within it, and the rows of the batch with this number."""
        epoch, index = divmod(position, self.windows_per_epoch())
        return epoch, index, self._batches(epoch)[index]


class LabelledBatches(ByLength):
    """Training batches without end; see :class:`ByLength`.

    Args:
        split: the rows. count: of a batch. streams: source of the order. pad: the id of padding.
    """

    def __init__(self, split: LabelledSplit, count: int, streams: RandomStreams, pad: int = 0):
        super().__init__(split.lengths, count, streams)
        self._split, self._pad = split, pad

    def at(self, position: int) -> Window:
        """See :class:`unrolled.task.Source`. Targets are (rows, 1)."""
        epoch, index, chosen = self.chosen(position)
        inputs, reset = padded([self._split.rows[place] for place in chosen.tolist()], self._pad)
        targets = torch.from_numpy(self._split.labels[chosen]).unsqueeze(1)
        return Window(inputs, targets, reset, None, epoch, index, carried=False)
