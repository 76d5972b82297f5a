"""The two layers of RWKV-4: time mixing and channel mixing."""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, ParameterRule, Place
from unrolled.cells.feedforward.mlp import hidden_width
from unrolled.cells.mixer import Given, MixerCell
from unrolled.kernels.softmax_scan import Weighted, empty, softmax_scan
from unrolled.kernels.token_shift import token_shift

__all__ = ["RWKV4", "RWKV4Channel", "RWKV4ChannelConfig", "RWKV4Config"]

_MIX = ParameterRule(decay=False, drawn=False)


class RWKV4Config(CellConfig):
    """Options of RWKV-4's time mixing."""

    name: Literal["rwkv4"] = "rwkv4"


class TimeState(NamedTuple):
    """x: (batch, in_width), the last input. top, u, w: (batch, width), the largest decayed key, the sum of weights and
    that of weighted values in units of e^top."""

    x: Tensor
    top: Tensor
    u: Tensor
    w: Tensor


class RWKV4(MixerCell):
    r"""Time mixing of RWKV-4 (Peng et al. 2023, arXiv:2305.13048): a decayed mean of values, weighted by e to the keys.

    .. math::
        k_t &= W_k (\mu_k \odot x_t + (1 - \mu_k) \odot x_{t-1}), \quad v_t, r_t \text{ alike} \\
        wkv_t &= \frac{\sum_{i<t} e^{-(t-1-i) w + k_i} \odot v_i + e^{u + k_t} \odot v_t}
                      {\sum_{i<t} e^{-(t-1-i) w + k_i} + e^{u + k_t}}, \quad w = e^{\omega} \\
        h_t &= W_o (\sigma(r_t) \odot wkv_t)

    μ multiplies the present input. Starts, by the layer's place l of L among cells of its kind and the channel i of D,
    as in the authors' code: μ_k = (i/D)^(1-l/L), μ_v that + 0.3 l/(L-1), μ_r = (i/D)^((1-l/L)/2), ω = -5 + 8
    (i/(D-1))^(0.7+1.3 l/(L-1)), u = log 0.3 + (0, ±1/2 in turn); W_v orthogonal and the other matrices zero. Nothing
    but matrices is decayed; ω learns at twice and u at three times the rate. Another published implementation starts u
    as ones and decodes wrongly for more than one sequence. The published block is a residual stack of the layers
    "rwkv4, rwkv4_channel" with layer norms, and a layer norm of the embedding. The traced o is σ(r).

    Parameters 3I + 2N + 3NI + N².
    """

    Config = RWKV4Config
    State = TimeState
    EXAMPLES = (RWKV4Config(),)
    EQUATION = "h = W_o(σ(r) * mean of v by e^(k - decay))"
    operation = "softmax_scan"
    recurrent_weights = ("weight_k", "weight_v", "weight_r")
    parameter_rules: Mapping[str, ParameterRule] = {
        **dict.fromkeys(("mix_k", "mix_v", "mix_r"), _MIX),
        "decay": ParameterRule(decay=False, rate=2.0, drawn=False),
        "bonus": ParameterRule(decay=False, rate=3.0, drawn=False),
        **dict.fromkeys(("weight_k", "weight_v", "weight_r", "out"), ParameterRule(drawn=False)),
    }

    def __init__(self, in_width: int, width: int, config: RWKV4Config):
        super().__init__(in_width, width, config)
        self.mix_k, self.mix_v, self.mix_r = (nn.Parameter(torch.empty(in_width)) for _ in range(3))
        self.decay, self.bonus = (nn.Parameter(torch.empty(width)) for _ in range(2))
        self.weight_k, self.weight_v, self.weight_r = (nn.Parameter(torch.empty(width, in_width)) for _ in range(3))
        self.out = nn.Parameter(torch.empty(width, width))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew, for the cell's place."""
        layer, layers, width = self.place.index, self.place.count, self.width
        depth, rest = layer / max(1, layers - 1), 1 - layer / layers
        channel = torch.arange(self.in_width) / self.in_width
        self.mix_k.copy_(channel**rest)
        self.mix_v.copy_(channel**rest + 0.3 * depth)
        self.mix_r.copy_(channel ** (0.5 * rest))
        place = torch.arange(width)
        self.decay.copy_(-5 + 8 * (place / max(1, width - 1)) ** (0.7 + 1.3 * depth))
        self.bonus.copy_(math.log(0.3) + 0.5 * ((place + 1) % 3 - 1))
        nn.init.orthogonal_(self.weight_v)
        for matrix in (self.weight_k, self.weight_r, self.out):
            matrix.zero_()

    def take_place(self, place: Place) -> None:
        """Begin as a layer of that depth does."""
        super().take_place(place)
        self.reset_parameters()

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> TimeState:
        """Nothing was seen."""
        x = torch.zeros(batch, self.in_width, device=device, dtype=dtype)
        return TimeState(x, *empty(x.new_zeros(batch, self.width)))

    def mix(self, x: Tensor, state: TimeState, given: Given) -> tuple[Tensor, TimeState]:
        """One window of the class's equations."""
        shares = 1 - torch.stack([self.mix_k, self.mix_v, self.mix_r])
        mixed = token_shift(x, state.x, shares, given.reset, self.wish_for("token_shift"), self.name)
        k, v, r = (self.linear(f"weight_{name}", part) for name, part in zip("kvr", mixed, strict=True))
        mean, last = softmax_scan(
            k, v, -self.decay.exp(), self.bonus, Weighted(*state[1:]), given.reset, self.wish, self.name
        )
        o = torch.sigmoid(r)
        h = self.linear("out", o * mean)
        new = TimeState(x[:, -1], *last)
        if given.show is not None:
            for name, value in {"o_pre": r, "o": o, "g": v}.items():
                given.show(name, value)
        return h, new

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """3I + 2N + 3NI + N²."""
        return 3 * in_width + 2 * width + 3 * width * in_width + width * width

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """6NI + 2N²."""
        return 6 * width * in_width + 2 * width * width


class RWKV4ChannelConfig(CellConfig):
    """Options of RWKV-4's channel mixing."""

    name: Literal["rwkv4_channel"] = "rwkv4_channel"
    factor: float = Field(default=4.0, gt=0, le=1024, description="hidden width, as a multiple of the width")


class LastInput(NamedTuple):
    """x: (batch, in_width), the last input."""

    x: Tensor


class RWKV4Channel(MixerCell):
    r"""Channel mixing of RWKV-4 (Peng et al. 2023): a squared-ReLU layer with a gate, that sees two inputs.

    .. math::
        k_t &= W_k (\mu_k \odot x_t + (1 - \mu_k) \odot x_{t-1}), \quad
        r_t = W_r (\mu_r \odot x_t + (1 - \mu_r) \odot x_{t-1}) \\
        h_t &= \sigma(r_t) \odot W_v \max(k_t, 0)^2

    Both μ start as (i/D)^(1-l/L), W_k orthogonal and the others zero, as in the authors' code; see
    :class:`RWKV4`. The traced o is σ(r).

    Parameters 2I + H(I + N) + NI, with hidden width H.
    """

    Config = RWKV4ChannelConfig
    State = LastInput
    EXAMPLES = (RWKV4ChannelConfig(), RWKV4ChannelConfig(factor=1.5))
    EQUATION = "h = σ(r) * W_v relu(k)²"
    operation = "linear"
    parameter_rules: Mapping[str, ParameterRule] = {
        **dict.fromkeys(("mix_k", "mix_r"), _MIX),
        **dict.fromkeys(("weight_k", "weight_v", "weight_r"), ParameterRule(drawn=False)),
    }

    def __init__(self, in_width: int, width: int, config: RWKV4ChannelConfig):
        super().__init__(in_width, width, config)
        hidden = hidden_width(config.factor, width)
        self.mix_k, self.mix_r = (nn.Parameter(torch.empty(in_width)) for _ in range(2))
        self.weight_k = nn.Parameter(torch.empty(hidden, in_width))
        self.weight_r = nn.Parameter(torch.empty(width, in_width))
        self.weight_v = nn.Parameter(torch.empty(width, hidden))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew, for the cell's place."""
        start = (torch.arange(self.in_width) / self.in_width) ** (1 - self.place.index / self.place.count)
        self.mix_k.copy_(start)
        self.mix_r.copy_(start)
        nn.init.orthogonal_(self.weight_k)
        self.weight_r.zero_()
        self.weight_v.zero_()

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
        shares = 1 - torch.stack([self.mix_k, self.mix_r])
        mixed = token_shift(x, state.x, shares, given.reset, self.wish_for("token_shift"), self.name)
        k, r = (self.linear(f"weight_{name}", part) for name, part in zip("kr", mixed, strict=True))
        o, hidden = torch.sigmoid(r), torch.relu(k).square()
        h = o * self.linear("weight_v", hidden)
        if given.show is not None:
            for name, value in {"o_pre": r, "o": o, "hidden": hidden, "x": x}.items():
                given.show(name, value)
        return h, LastInput(x[:, -1])

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """2I + H(I + N) + NI."""
        return 2 * in_width + hidden_width(config.factor, width) * (in_width + width) + width * in_width

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2H(I + N) + 2NI."""
        return 2 * hidden_width(config.factor, width) * (in_width + width) + 2 * width * in_width
