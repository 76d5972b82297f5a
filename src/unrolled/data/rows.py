"""Independent rows: sentences, minimal pairs and prompts, batched by length."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from unrolled.core.errors import UsageError
from unrolled.data.stream import Window

__all__ = ["Rows", "rows"]


class Rows(NamedTuple):
    """Some independent sequences as one window; ``order`` (rows,) are their indices in the caller's list."""

    window: Window
    order: list[int]


def rows(sequences: Sequence[Sequence[int]], start_id: int, batch: int = 32) -> Iterator[Rows]:
    """Batches of sequences of similar length, shortest first.

    Rows are padded on the left; padding is ``start_id`` as input and target with weight 0, and the state
    resets at a row's first token. Every token of a sequence is a target; the first input is ``start_id``.

    Args:
        sequences: token ids, each at least one.
        start_id: id fed before the first token.
        batch: rows per window.
    Raises:
        UsageError: a sequence is empty.
    """
    lengths = [len(sequence) for sequence in sequences]
    if lengths and not min(lengths):
        raise UsageError(f"row {lengths.index(0)} has no token; leave empty texts out.")
    order = sorted(range(len(sequences)), key=lambda index: (lengths[index], index))
    for index, low in enumerate(range(0, len(order), batch)):
        chosen = order[low : low + batch]
        time = lengths[chosen[-1]]
        targets = np.full((len(chosen), time), start_id, np.int64)
        inputs = targets.copy()
        reset = np.zeros((len(chosen), time), bool)
        weight = np.zeros((len(chosen), time), np.float32)
        for row, number in enumerate(chosen):
            first = time - lengths[number]
            targets[row, first:] = sequences[number]
            inputs[row, first + 1 :] = targets[row, first:-1]
            reset[row, first] = True
            weight[row, first:] = 1
        parts = (torch.from_numpy(part) for part in (inputs, targets, reset, weight))
        yield Rows(Window(*parts, epoch=0, index=index, carried=False), chosen)
