"""The direct sum that defines the operation."""

import torch
from torch import Tensor

__all__ = ["conv"]


def conv(u: Tensor, kernel: Tensor) -> Tensor:
    """y(t) = sum over l of K(l) u(t - l); u (batch, time, width), kernel (width, L <= time)."""
    taps, inputs = kernel.t().unbind(0), u.unbind(1)
    outputs = [sum(tap * inputs[t - lag] for lag, tap in enumerate(taps[: t + 1])) for t in range(len(inputs))]
    return torch.stack(outputs, 1)  # type: ignore[arg-type]
