"""Windows cut where a segment of any row begins or ends."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Piece", "borders", "pieces"]


class Piece(NamedTuple):
    """Tokens ``low`` to ``high`` - 1 of a window, of one segment in each row.

    restarts, ends: boolean (batch,), rows whose document begins with the piece and rows whose segment ends with it;
    None where there is none.
    """

    low: int
    high: int
    restarts: Tensor | None
    ends: Tensor | None


def borders(begins: np.ndarray, ends: np.ndarray) -> list[tuple[int, int]]:
    """The pieces of a window, from and to: cut before a token that begins a segment in any row, and behind one that
    ends it. begins, ends: boolean (batch, time)."""
    inner = begins[:, 1:].any(0) | ends[:, :-1].any(0)
    lows = [0, *(1 + np.flatnonzero(inner)).tolist()]
    return list(zip(lows, [*lows[1:], begins.shape[1]], strict=True))


def pieces(inside: Tensor, length: int, reset: Tensor | None) -> Iterator[Piece]:
    """The pieces of a window of segments of ``length`` tokens.

    Args:
        inside: int64 (batch, time), the place of each token in its segment. reset: boolean (batch, time) or None.
    """
    places = inside.cpu().numpy()
    begun = np.zeros(places.shape, bool) if reset is None else reset.cpu().numpy()
    ends = places == length - 1

    def some(rows: np.ndarray) -> Tensor | None:
        return torch.from_numpy(rows.copy()).to(inside.device) if rows.any() else None

    for low, high in borders(begun, ends):
        yield Piece(low, high, some(begun[:, low]), some(ends[:, high - 1]))
