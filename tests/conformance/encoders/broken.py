"""A new encoder that is sound, and encoders that are broken on purpose; each must fail the check that it is for."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from unrolled.cells.base import CellConfig
from unrolled.cells.encoders.base import EncoderCell

__all__ = ["BROKEN", "Sound"]


class _Config(CellConfig):
    name: Literal["sound"] = "sound"


class Sound(EncoderCell):
    """A map of each token beside the mean of all."""

    Config = _Config
    EXAMPLES = (_Config(),)
    EQUATION = "y = W x + mean(V x)"

    def __init__(self, in_width: int, width: int, config: Any):
        super().__init__(in_width, width, config)
        self.weight, self.whole = (nn.Parameter(torch.randn(width, in_width)) for _ in range(2))

    def encode(self, x: Tensor, mask: Tensor | None) -> Tensor:
        there = x.new_ones(x.shape[:2]) if mask is None else mask.to(x.dtype)
        mean = (x * there.unsqueeze(-1)).sum(1) / there.sum(1, keepdim=True)
        return torch.tanh(self.linear("weight", x) + self.linear("whole", mean).unsqueeze(1))

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        return 2 * in_width * width

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        return 4 * in_width * width


class Narrow(Sound):
    def encode(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return super().encode(x, mask).double()


class SeesPadding(Sound):
    def encode(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return super().encode(x, None)


class Causal(Sound):
    def encode(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return torch.tanh(self.linear("weight", x)).cumsum(1)


class OtherGradient(Sound):
    def encode(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = super().encode(x, mask)
        return y + 0.1 * (y - y.detach())


class Counts(Sound):
    calls = 0

    def encode(self, x: Tensor, mask: Tensor | None) -> Tensor:
        self.calls += 1
        return super().encode(x, mask) * (1 + 1e-6 * self.calls)


class OtherBackend(Sound):
    def backends(self) -> list[str]:
        return ["reference", "window"]

    def encode(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return super().encode(x, mask) * (1.0001 if self.compute.wish("linear") == "window" else 1)


BROKEN: dict[str, list[type[EncoderCell]]] = {
    "shapes": [Narrow],
    "padding": [SeesPadding],
    "padding_gradient": [SeesPadding],
    "sees_the_future": [Causal],
    "gradients": [OtherGradient],
    "pure": [Counts],
    "backends": [OtherBackend],
}
