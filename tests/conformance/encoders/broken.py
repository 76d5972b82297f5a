"""A new encoder that is sound, and encoders that are broken on purpose; each must fail the check that it is for."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from unrolled.cells.base import CellConfig
from unrolled.cells.encoders.base import Drop, EncoderCell

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
        self.inner_sites = {"mean": width}
        self.weight, self.whole = (nn.Parameter(torch.randn(width, in_width)) for _ in range(2))

    def encode(self, x: Tensor, mask: Tensor | None, drop: Drop) -> Tensor:
        there = x.new_ones(x.shape[:2]) if mask is None else mask.to(x.dtype)
        mean = (x * there.unsqueeze(-1)).sum(1) / there.sum(1, keepdim=True)
        return torch.tanh(self.linear("weight", x) + drop("mean", self.linear("whole", mean).unsqueeze(1)))

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        return 2 * in_width * width

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        return 4 * in_width * width


class Narrow(Sound):
    def encode(self, x: Tensor, mask: Tensor | None, drop: Drop) -> Tensor:
        return super().encode(x, mask, drop).double()


class SeesPadding(Sound):
    def encode(self, x: Tensor, mask: Tensor | None, drop: Drop) -> Tensor:
        return super().encode(x, None, drop)


class Causal(Sound):
    def encode(self, x: Tensor, mask: Tensor | None, drop: Drop) -> Tensor:
        return torch.tanh(self.linear("weight", x)).cumsum(1)


class OtherGradient(Sound):
    def encode(self, x: Tensor, mask: Tensor | None, drop: Drop) -> Tensor:
        y = super().encode(x, mask, drop)
        return y + 0.1 * (y - y.detach())


class IgnoresMasks(Sound):
    def encode(self, x: Tensor, mask: Tensor | None, drop: Drop) -> Tensor:
        return super().encode(x, mask, lambda site, value: value)


class TakesAnyLength(Sound):
    """Says that its rows have 7 steps, and takes others."""

    @classmethod
    def row_steps(cls, config: Any) -> int | None:
        return 7

    def forward(self, x: Tensor, state: Any = None, reset: Tensor | None = None, *others: Any) -> tuple[Tensor, Any]:
        return self.encode(x, None, lambda site, value: value), self.initial_state(len(x))


class Counts(Sound):
    calls = 0

    def encode(self, x: Tensor, mask: Tensor | None, drop: Drop) -> Tensor:
        self.calls += 1
        return super().encode(x, mask, drop) * (1 + 1e-6 * self.calls)


class OtherBackend(Sound):
    def backends(self) -> list[str]:
        return ["reference", "window"]

    def encode(self, x: Tensor, mask: Tensor | None, drop: Drop) -> Tensor:
        return super().encode(x, mask, drop) * (1.0001 if self.compute.wish("linear") == "window" else 1)


BROKEN: dict[str, list[type[EncoderCell]]] = {
    "shapes": [Narrow],
    "padding": [SeesPadding, TakesAnyLength],
    "padding_gradient": [SeesPadding],
    "sees_the_future": [Causal],
    "inner_masks": [IgnoresMasks],
    "gradients": [OtherGradient],
    "pure": [Counts],
    "backends": [OtherBackend],
}
