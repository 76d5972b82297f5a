"""The plain loop that defines the operation."""

import torch
from torch import Tensor

__all__ = ["scan"]


def scan(a: Tensor, b: Tensor, h0: Tensor, reset: Tensor | None, initial: Tensor) -> tuple[Tensor, Tensor]:
    """h(t) = a(t) h(t-1) + b(t); all of one type, b (batch, time, width), a the same or 1 in places of these."""
    resets = [None] * b.shape[1] if reset is None else reset.unbind(1)
    h, outputs = h0, []
    for a_t, b_t, reset_t in zip(a.expand_as(b).unbind(1), b.unbind(1), resets, strict=True):
        if reset_t is not None:
            h = torch.where(reset_t.unsqueeze(1), initial, h)
        h = a_t * h + b_t
        outputs.append(h)
    return torch.stack(outputs).transpose(0, 1), h
