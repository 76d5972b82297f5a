"""The input one step before."""

import torch
from torch import Tensor

__all__ = ["shifted"]


def shifted(x: Tensor, before: Tensor, reset: Tensor | None = None) -> Tensor:
    """Each step's last input (token shift).

    Args:
        x: (batch, time, width). before: (batch, width), the input before the window, zero before the first of all.
        reset: boolean (batch, time) or None; where true the last input is zero.
    Returns:
        (batch, time, width).
    """
    y = torch.cat([before.unsqueeze(1), x[:, :-1]], 1)
    return y if reset is None else y.masked_fill(reset.unsqueeze(-1), 0)
