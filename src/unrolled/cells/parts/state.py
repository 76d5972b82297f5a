"""States that several cells have."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ChannelState", "as_complex", "as_real", "show_state"]


class ChannelState(NamedTuple):
    """c: (batch, channels), one number a channel; of a complex state the real parts, then the imaginary ones."""

    c: Tensor


def as_complex(x: Tensor) -> Tensor:
    """(..., 2N), real parts first, as complex (..., N)."""
    return torch.complex(*x.chunk(2, -1))


def as_real(x: Tensor) -> Tensor:
    """Complex (..., N) as (..., 2N), real parts first."""
    return torch.cat([x.real, x.imag], -1)


def show_state(show: object, state: NamedTuple, steps: int) -> None:
    """Name the fields of a state that is known after the whole window alone; it is that of the step in a window of one,
    and a longer one is read step by step by whoever wants it.

    Args:
        show: :data:`unrolled.cells.mixer.Show` or None. steps: of the window.
    """
    if callable(show) and steps == 1:
        for name, value in state._asdict().items():
            show(name, value.unsqueeze(1))
