"""Heads: the norm of each by itself."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from unrolled.kernels.rms_norm import rms_norm

__all__ = ["HeadNorm", "cut_heads"]


def cut_heads(x: Tensor, heads: int) -> Tensor:
    """(..., heads * n) -> (..., heads, n)."""
    return x.unflatten(-1, (heads, -1))


class HeadNorm(nn.Module):
    """Normalisation of each head's vector by itself.

    Args:
        heads, size: of the (..., heads, size) that it takes. kind: ``rms`` or ``layer``. gain: ``shared``, one (size,)
        for
            all heads; ``channels``, (heads * size,); ``none``. bias: whether there are biases beside the gain of every
            channel. epsilon: beside the mean square.
    """

    def __init__(
        self,
        heads: int,
        size: int,
        kind: Literal["rms", "layer"] = "rms",
        gain: Literal["shared", "channels", "none"] = "shared",
        bias: bool = False,
        epsilon: float = 1e-5,
    ):
        super().__init__()
        self.kind, self.epsilon, self.gain = kind, epsilon, gain
        width = size if gain == "shared" else heads * size
        self.weight = None if gain == "none" else nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor, wish: str = "auto") -> Tensor:
        """x: (..., heads, size), the same back. wish: the backend that is asked of ``rms_norm``."""
        size = x.shape[-1]
        one: Any = self.weight if self.gain == "shared" else x.new_ones(size)
        y = (
            rms_norm(x, one, self.epsilon, wish)
            if self.kind == "rms"
            else layer_norm(x, (size,), one, None, self.epsilon)
        )
        if self.gain == "channels" and self.weight is not None:
            y = y * self.weight.view(-1, size)
        return y if self.bias is None else y + self.bias.view(-1, size)
