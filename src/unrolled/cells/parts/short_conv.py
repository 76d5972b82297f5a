"""The short depthwise convolution in front of many mixers."""

from typing import Any

import torch
from torch import Tensor, nn

from unrolled.kernels.causal_conv import BACKENDS, Activation, causal_conv

__all__ = ["ShortConv"]


class ShortConv(nn.Module):
    """y(t) = bias + sum over the last ``kernel`` inputs, channel by channel, of which the activation.

    A cell holds it as a submodule, and its cache as a field ``conv`` of its State. The parameters are ``weight``
    (width, kernel), whose last tap is that of the newest input, and ``bias`` (width,); both start as those of
    ``torch.nn.Conv1d`` with as many groups as channels, U(+-kernel^-1/2).

    Args:
        width: channels. kernel: inputs that are seen, the present one among them. bias: whether there is one.
        activation: ``silu``, or None.
    """

    def __init__(self, width: int, kernel: int, bias: bool = True, activation: Activation | None = None):
        super().__init__()
        self.width, self.kernel = width, kernel
        self.activation: Activation | None = activation
        self.weight = nn.Parameter(torch.empty(width, kernel))
        self.bias = nn.Parameter(torch.empty(width)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(self.kernel**-0.5), self.kernel**-0.5)

    def initial(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Tensor:
        """The cache before the first input: zeros (batch, kernel - 1, width)."""
        return torch.zeros(batch, self.kernel - 1, self.width, device=device, dtype=dtype)

    def forward(
        self, x: Tensor, cache: Tensor, reset: Tensor | None = None, wish: str = "auto", subject: str = ""
    ) -> tuple[Tensor, Tensor]:
        """Convolve a window.

        Args:
            x: (batch, time, width). cache: (batch, kernel - 1, width). reset: boolean (batch, time) or None.
            wish: the backend that is asked of ``causal_conv``; one that it lacks was meant for another operation of the
                cell, and is ``auto`` here. subject: who asks, for the record of choices.
        Returns:
            y (batch, time, width) and the cache after the window.
        """
        backend = wish if wish in BACKENDS else "auto"
        return causal_conv(
            x, self.weight, self.bias, cache, reset, activation=self.activation, backend=backend, subject=subject
        )

    @staticmethod
    def num_params(width: int, kernel: int, bias: bool = True) -> int:
        """width (kernel + 1), without a bias width kernel."""
        return width * (kernel + bias)
