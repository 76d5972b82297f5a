"""Channel mixing of RWKV-7."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, ParameterRule, Place
from unrolled.cells.feedforward.mlp import hidden_width
from unrolled.cells.matrix.base import fill
from unrolled.cells.mixer import Given, MixerCell
from unrolled.cells.scan.rwkv4 import LastInput
from unrolled.kernels.token_shift import token_shift

__all__ = ["RWKV7Channel", "RWKV7ChannelConfig"]


class RWKV7ChannelConfig(CellConfig):
    """Options of RWKV-7's channel mixing."""

    name: Literal["rwkv7_channel"] = "rwkv7_channel"
    factor: float = Field(default=4.0, gt=0, le=1024, description="hidden width, as a multiple of the width")


class RWKV7Channel(MixerCell):
    r"""Channel mixing of RWKV-7 (Peng et al. 2025, arXiv:2503.14456): a squared-ReLU layer that sees two inputs.

    .. math::
        h_t = W_v \max(W_k (x_t + \mu \odot (x_{t-1} - x_t)), 0)^2

    No gate, unlike RWKV-4's. μ starts as 1 - (i/D)^((1-l/L)^4), W_k uniform within N^-1/2 / 2, W_v zero, as in the
    authors' code.

    Parameters I + HI + NH, with hidden width H.
    """

    Config = RWKV7ChannelConfig
    State = LastInput
    EXAMPLES = (RWKV7ChannelConfig(), RWKV7ChannelConfig(factor=1.5))
    EQUATION = "h = W_v relu(W_k x)²"
    operation = "linear"
    parameter_rules = {
        "mu": ParameterRule(decay=False),
        **dict.fromkeys(("weight_k", "weight_v"), ParameterRule(drawn=False)),
    }

    def __init__(self, in_width: int, width: int, config: RWKV7ChannelConfig):
        super().__init__(in_width, width, config)
        hidden = hidden_width(config.factor, width)
        self.mu = nn.Parameter(torch.empty(in_width))
        self.weight_k = nn.Parameter(torch.empty(hidden, in_width))
        self.weight_v = nn.Parameter(torch.empty(width, hidden))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew, for the cell's place."""
        power = (1 - self.place.index / self.place.count) ** 4
        start = 1 - (torch.arange(self.in_width) / self.in_width) ** power
        fill(lambda vector: vector.copy_(start), [self.mu])
        bound = 0.5 * self.in_width**-0.5
        fill(lambda matrix: nn.init.uniform_(matrix, -bound, bound), [self.weight_k])
        fill(nn.init.zeros_, [self.weight_v])

    def take_place(self, place: Place) -> None:
        """Begin as a layer of that depth does."""
        super().take_place(place)
        self.reset_parameters()

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> LastInput:
        """Zeros."""
        return LastInput(torch.zeros(batch, self.in_width, device=device, dtype=dtype))

    def backends(self) -> list[str]:
        """Those of ``linear``."""
        return ["window", "reference"]

    def mix(self, x: Tensor, state: LastInput, given: Given) -> tuple[Tensor, LastInput]:
        """One window of the class's equations."""
        wish = self.wish_for("token_shift")
        (mixed,) = token_shift(x, state.x, self.mu.unsqueeze(0), given.reset, wish, self.name)
        hidden = torch.relu(self.linear("weight_k", mixed)).square()
        if given.show is not None:
            given.show("hidden", hidden)
        return self.linear("weight_v", hidden), LastInput(x[:, -1])

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """I + HI + NH."""
        return in_width + hidden_width(config.factor, width) * (in_width + width)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2H(I + N)."""
        return 2 * hidden_width(config.factor, width) * (in_width + width)
