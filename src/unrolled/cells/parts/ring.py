"""What the last tokens left, kept newest last, and what of it each token of a window may see."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Turned", "places_of", "turn", "turn_segment"]


class Turned(NamedTuple):
    """joined: what was kept and the window behind it, one tensor a part, (batch, length + time, ...). first: int64
    (batch, time), the first place of these that each token sees. kept: the parts after the window, (batch, length,
    ...). fill: how many places of them are filled."""

    joined: list[Tensor]
    first: Tensor
    kept: list[Tensor]
    fill: Tensor


def turn(ring: Sequence[Tensor], new: Sequence[Tensor], fill: Tensor, reset: Tensor | None) -> Turned:
    """Put a window behind what was kept.

    Each token sees the ``length`` places before its own, but nothing from before its document. A place that is not
    filled, or that a reset empties, is zero, so that one state has one form.

    Args:
        ring: parts (batch, length, ...), length >= 1, newest last. new: the same of the window, (batch, time, ...).
        fill: int64 (batch,), how many of the places are filled, from the last reset on.
        reset: boolean (batch, time) or None.
    """
    length, time = ring[0].shape[1], new[0].shape[1]
    joined = [torch.cat([old, now], 1) for old, now in zip(ring, new, strict=True)]
    kept = [part[:, -length:] for part in joined]
    steps = torch.arange(time, device=fill.device)
    first = torch.maximum(steps, length - fill.unsqueeze(1))
    if reset is None:
        return Turned(joined, first, kept, (fill + time).clamp_max(length))
    begun = torch.where(reset, steps, -length).cummax(1).values
    last = begun[:, -1:]
    empty = (last >= 0) & (torch.arange(length, device=fill.device) < length - (time - last))
    kept = [part.masked_fill(empty.view(*empty.shape, *[1] * (part.dim() - 2)), 0) for part in kept]
    filled = torch.where(last[:, 0] >= 0, time - last[:, 0], fill + time)
    return Turned(joined, torch.maximum(first, length + begun), kept, filled.clamp_max(length))


def places_of(before: Tensor, reset: Tensor | None, time: int) -> Tensor:
    """(batch, time): the place of each token in its document, from 0, where (batch,) ``before`` tokens of the first
    came before the window."""
    steps = torch.arange(time, device=before.device)
    place = before.unsqueeze(1) + steps
    if reset is None:
        return place
    begun = torch.where(reset, steps, -1).cummax(1).values
    return torch.where(begun < 0, place, steps - begun)


def turn_segment(ring: Sequence[Tensor], new: Sequence[Tensor], fill: Tensor, reset: Tensor | None) -> Turned:
    """The same for segments: documents are cut into such of ``length`` + 1 tokens, and each token sees those of its own
    segment before it.

    Args:
        fill: int64 (batch,), tokens of the open segment, at most ``length``. The others as in :func:`turn`.
    """
    length, time = ring[0].shape[1], new[0].shape[1]
    joined = [torch.cat([old, now], 1) for old, now in zip(ring, new, strict=True)]
    inside = places_of(fill, reset, time) % (length + 1)
    filled = (inside[:, -1] + 1) % (length + 1)
    empty = torch.arange(length, device=fill.device) < length - filled.unsqueeze(1)
    kept = [part[:, -length:].masked_fill(empty.view(*empty.shape, *[1] * (part.dim() - 2)), 0) for part in joined]
    return Turned(joined, length + torch.arange(time, device=fill.device) - inside, kept, filled)
