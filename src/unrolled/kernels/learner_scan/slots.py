"""Chunks of every row, side by side; rows may stand at different places of theirs and begin documents anywhere."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Slots", "cut"]


class Slots(NamedTuple):
    """Pieces of a window, none of them across the border of a chunk or of a document; padded to equal numbers.

    Attributes:
        index: int64 (batch, slots, length), the token in each place; ``time`` where there is none.
        where: int64 (batch, time), the place of each token in slots * length.
        there: boolean (batch, slots, length), whether there is a token.
        place: int64 (batch, slots, length), the token's place in its chunk.
        fresh: boolean (batch, slots), whether a document begins there. opens: whether a chunk does. done: whether a
            chunk ends there.
        last: int64 (batch,), tokens of the chunk that is open behind the window.
    """

    index: Tensor
    where: Tensor
    there: Tensor
    place: Tensor
    fresh: Tensor
    opens: Tensor
    done: Tensor
    last: Tensor


def cut(place: Tensor, reset: Tensor | None, time: int, chunk: int) -> Slots:
    """Cut a window of ``time`` tokens.

    Args:
        place: int64 (batch,), tokens of the chunk that is open before the window. reset: boolean (batch, time) or None.
    """
    steps = torch.arange(time, device=place.device)
    inside = place.unsqueeze(1) + steps
    if reset is not None:
        begun = torch.where(reset, steps, -1).cummax(1).values
        inside = torch.where(begun < 0, inside, steps - begun)
    inside = inside % chunk
    last = (inside[:, -1] + 1) % chunk
    if time == 1:
        # of one step all shapes are known before the values are
        fresh = torch.zeros_like(inside, dtype=torch.bool) if reset is None else reset
        zero = torch.zeros_like(inside).unsqueeze(-1)
        there = torch.ones_like(zero, dtype=torch.bool)
        return Slots(zero, zero[..., 0], there, inside.unsqueeze(-1), fresh, inside == 0, inside == chunk - 1, last)
    borders = (inside == 0) if reset is None else (inside == 0) | reset
    borders = borders | (steps == 0)
    slot = borders.cumsum(1) - 1
    length, count = min(chunk, time), int(slot.max()) + 1
    where = slot * length + steps - torch.where(borders, steps, 0).cummax(1).values
    rows = (place.shape[0], count * length)
    index = torch.full(rows, time, device=place.device).scatter(1, where, steps.expand_as(where))

    def spread(x: Tensor, empty: int) -> Tensor:
        return torch.full(rows, empty, device=x.device).scatter(1, where, x.long()).unflatten(1, (count, length))

    inside_of, borders_of = spread(inside, -1), (inside == 0)
    resets = spread(torch.zeros_like(inside) if reset is None else reset, 0)
    return Slots(
        index.unflatten(1, (count, length)),
        where,
        index.unflatten(1, (count, length)) < time,
        inside_of.clamp_min(0),
        resets[..., 0] > 0,
        spread(borders_of, 0)[..., 0] > 0,
        (inside_of == chunk - 1).any(-1),
        last,
    )
