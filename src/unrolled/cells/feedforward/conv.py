"""A short convolution as a layer of its own."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, ParameterRule
from unrolled.cells.mixer import Given, MixerCell
from unrolled.cells.parts.short_conv import ShortConv

__all__ = ["Conv", "ConvConfig"]


class ConvConfig(CellConfig):
    """Options of the convolution as a layer."""

    name: Literal["conv"] = "conv"
    kernel: int = Field(default=4, ge=2, le=64, description="inputs that an output sees, the present one among them")


class ConvState(NamedTuple):
    """conv: (batch, kernel - 1, in_width), the last inputs."""

    conv: Tensor


class Conv(MixerCell):
    r"""A convolution over the last inputs, channel by channel, and a map of the channels: the layer that stands before
    each minGRU or minLSTM of a language model (Feng et al. 2024, arXiv:2410.01201, and the authors' code).

    .. math::
        y_t = W (\textstyle\sum_{j<K} w_j \odot x_{t-j} + b) + b'

    It is added to its input as that is: a residual stack puts no norm before it, as in the authors' code. Weights start
    as those of ``torch.nn.Conv1d``.

    Parameters I(K + 1) + NI + N, with kernel K.
    """

    Config = ConvConfig
    State = ConvState
    EXAMPLES = (ConvConfig(), ConvConfig(kernel=2))
    EQUATION = "y = W (sum of w x over the last inputs)"
    operation = "causal_conv"
    normed = False
    parameter_rules = {"conv.weight": ParameterRule(drawn=False)}

    def __init__(self, in_width: int, width: int, config: ConvConfig):
        super().__init__(in_width, width, config)
        self.conv = ShortConv(in_width, config.kernel)
        self.weight, self.bias = nn.Parameter(torch.empty(width, in_width)), nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the map anew."""
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -(self.in_width**-0.5), self.in_width**-0.5)

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> ConvState:
        """Zeros."""
        return ConvState(self.conv.initial(batch, device, dtype))

    def mix(self, x: Tensor, state: ConvState, given: Given) -> tuple[Tensor, ConvState]:
        """One window of the class's equation."""
        mixed, cache = self.conv(x, state.conv, given.reset, self.wish, self.name)
        if given.show is not None:
            given.show("hidden", mixed)
        return self.linear("weight", mixed, "bias"), ConvState(cache)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """I(K + 1) + NI + N."""
        return ShortConv.num_params(in_width, config.kernel) + width * (in_width + 1)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2NI."""
        return 2 * width * in_width
