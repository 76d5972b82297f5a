"""States that several cells have."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ChannelState", "as_complex", "as_real"]


class ChannelState(NamedTuple):
    """c: (batch, channels), one number a channel; of a complex state the real parts, then the imaginary ones."""

    c: Tensor


def as_complex(x: Tensor) -> Tensor:
    """(..., 2N), real parts first, as complex (..., N)."""
    return torch.complex(*x.chunk(2, -1))


def as_real(x: Tensor) -> Tensor:
    """Complex (..., N) as (..., 2N), real parts first."""
    return torch.cat([x.real, x.imag], -1)
