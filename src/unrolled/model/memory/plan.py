"""Where the segments of a window begin and end."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unrolled.cells.parts.pieces import borders
from unrolled.core.random import RandomStreams

__all__ = ["Drawn", "Piece", "draw", "plan"]


class Drawn(NamedTuple):
    """What is drawn for a window of training. length: tokens of a segment. keep: whether the hand-over at the first,
    second, ... end of a segment in a row lets gradients through; beyond these all do."""

    length: int
    keep: tuple[bool, ...] = ()


class Piece(NamedTuple):
    """Tokens ``low`` to ``high`` - 1 of a window, of one segment in each row.

    begins, restarts, ends, cuts: boolean (batch,), the rows whose segment begins with the piece, by a reset, ends with
    it, and hands nothing to gradients then.
    """

    low: int
    high: int
    begins: np.ndarray
    restarts: np.ndarray
    ends: np.ndarray
    cuts: np.ndarray


def draw(config: object, time: int, streams: RandomStreams, window: int) -> Drawn | None:
    """The lengths and the hand-overs of one window of ``time`` tokens; None where nothing is drawn."""
    segment, least, keep = (getattr(config, name) for name in ("segment", "least", "keep"))
    if least is None and keep == 1:
        return None
    g = np.random.default_rng(streams.key("memory", window))
    length = segment if least is None else int(g.integers(least, segment + 1))
    kept = g.random(time // length + 1) < keep if keep < 1 else ()
    return Drawn(length, tuple(bool(one) for one in kept))


def plan(
    fill: np.ndarray, reset: np.ndarray | None, time: int, drawn: Drawn, depth: int | None = None
) -> Sequence[Piece]:
    """A window cut where a segment of any row begins or ends.

    Args:
        fill: (batch,), tokens of the segments that are open. reset: boolean (batch, time) or None.
        depth: see :class:`unrolled.model.memory.base.MemoryConfig`.
    """
    batch, length, steps = len(fill), drawn.length, np.arange(time)
    reset = np.zeros((batch, time), bool) if reset is None else reset
    last = np.maximum.accumulate(np.where(reset, steps, -1), 1)
    # an open segment longer than what was drawn for this window ends with its next token
    place = np.where(last < 0, np.minimum(fill, length - 1)[:, None] + steps, steps - last) % length
    begins, ends = place == 0, place == length - 1
    begins[:, 0] &= (fill == 0) | reset[:, 0]
    following = begins.sum(1, keepdims=True) - np.cumsum(begins, 1)
    cuts = np.zeros_like(ends) if depth is None else ends & (following > 0) & (following % (depth + 1) == 0)
    if drawn.keep:
        number = np.minimum(np.cumsum(ends, 1) - 1, len(drawn.keep) - 1)
        cuts |= ends & ~np.asarray(drawn.keep)[np.maximum(number, 0)]
    return [Piece(a, b, begins[:, a], reset[:, a], ends[:, b - 1], cuts[:, b - 1]) for a, b in borders(begins, ends)]
