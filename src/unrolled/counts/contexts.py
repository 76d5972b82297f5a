"""The tokens before each token of a stream, with texts that begin anew and windows that follow one another."""

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

__all__ = ["Contexts", "Recent", "begin", "slide"]


class Recent(NamedTuple):
    """The last tokens of each row: ids (batch, width) int64, the newest last; known (batch,): how many count."""

    ids: np.ndarray
    known: np.ndarray


class Contexts(NamedTuple):
    """Per token, what precedes it: ids (batch, time, width), known (batch, time); ``after`` follows the last."""

    ids: np.ndarray
    known: np.ndarray
    after: Recent


def begin(first: np.ndarray, width: int) -> Recent:
    """Rows that have read one token each. first: (batch,)."""
    ids = np.zeros((len(first), width), np.int64)
    ids[:, width - 1 :] = first[:, None][:, : min(width, 1)]
    return Recent(ids, np.full(len(first), min(width, 1), np.int64))


def slide(recent: Recent, ids: np.ndarray, reset: np.ndarray | None, start_id: int) -> Contexts:
    """The context of every token of a window.

    Args:
        recent: what the rows have read before.
        ids: (batch, time). reset: boolean (batch, time) or None; where true a text begins with this token:
            its context is ``start_id`` alone.
    """
    batch, time = ids.shape
    width = recent.ids.shape[1]
    steps = np.arange(time + 1)
    known = np.minimum(recent.known[:, None] + steps, width)
    if width:
        contexts = sliding_window_view(np.concatenate([recent.ids, ids], 1), width, axis=1)
    else:
        contexts = np.zeros((batch, time + 1, 0), np.int64)
    if reset is not None and width:
        flags = np.concatenate([reset, np.zeros((batch, 1), bool)], 1)
        begun = np.maximum.accumulate(np.where(flags, steps, -1), axis=1)
        since = steps - begun  # tokens of the text before this one
        known = np.where(begun >= 0, np.minimum(since + 1, width), known)
        rows, times = np.nonzero((begun >= 0) & (since < width))
        contexts = contexts.copy()
        contexts[rows, times, width - 1 - since[rows, times]] = start_id
    return Contexts(contexts[:, :-1], known[:, :-1], Recent(contexts[:, -1].copy(), known[:, -1]))
