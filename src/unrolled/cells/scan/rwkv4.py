"""The two layers of RWKV-4: time mixing and channel mixing, each for one perspective or for several.

Perspectives (multiple temporal perspectives, Dumitru, Peteleaza and Surdeanu 2024, arXiv:2402.02625) are passes over
the same tokens which share the matrices, the decay and the bonus; each has vectors μ of its own. The cells hold them
side by side: inputs and outputs of n vectors, one after another. All begin alike, so that a model of one perspective
goes on as one of several.
"""

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


class PerspectivesConfig(CellConfig):
    """The option that both layers have."""

    perspectives: int = Field(
        default=1,
        ge=1,
        le=256,
        description="passes over the same tokens with the same matrices, each with mixing vectors of its own "
        "(multiple temporal perspectives)",
    )


class RWKV4Config(PerspectivesConfig):
    """Options of RWKV-4's time mixing."""

    name: Literal["rwkv4"] = "rwkv4"


class _Perspectives(MixerCell):
    """What both layers do for several perspectives."""

    def _mixing(self) -> nn.Parameter:
        """A mixing vector, one a perspective."""
        count, each = self.config.perspectives, self.in_width // self.config.perspectives
        return nn.Parameter(torch.empty((each,) if count == 1 else (count, each)))

    def _apart(self, x: Tensor) -> Tensor:
        """(..., perspectives * size) -> (..., perspectives, size); as it is where there is one."""
        count = self.config.perspectives
        return x if count == 1 else x.unflatten(-1, (count, -1))

    def _together(self, x: Tensor) -> Tensor:
        """The way back."""
        return x if self.config.perspectives == 1 else x.flatten(-2)

    def _mixed(self, x: Tensor, before: Tensor, given: Given, mixing: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Products of each mixture of an input and the one before with its matrix, (..., perspectives * size)."""
        shares = 1 - torch.stack([vector.flatten() for vector in mixing.values()])
        mixed = token_shift(x, before, shares, given.reset, self.wish_for("token_shift"), self.name)
        pairs = zip(mixing, mixed, strict=True)
        return tuple(self._together(self.linear(f"weight_{name}", self._apart(part))) for name, part in pairs)

    @classmethod
    def streams(cls, config: Any) -> int:
        """The perspectives."""
        return config.perspectives

    @classmethod
    def output_width(cls, config: Any, width: int) -> int:
        """As many outputs of the width."""
        return config.perspectives * width


class TimeState(NamedTuple):
    """x: (batch, in_width), the last input. top, u, w: (batch, out_width), the largest decayed key, the sum of weights
    and that of weighted values in units of e^top."""

    x: Tensor
    top: Tensor
    u: Tensor
    w: Tensor


class RWKV4(_Perspectives):
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

    Parameters 3PI + 2N + 3NI + N², for P perspectives with inputs of width I each.
    """

    Config = RWKV4Config
    State = TimeState
    EXAMPLES = (RWKV4Config(), RWKV4Config(perspectives=3))
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
        self.mix_k, self.mix_v, self.mix_r = (self._mixing() for _ in range(3))
        each = in_width // config.perspectives
        self.decay, self.bonus = (nn.Parameter(torch.empty(width)) for _ in range(2))
        self.weight_k, self.weight_v, self.weight_r = (nn.Parameter(torch.empty(width, each)) for _ in range(3))
        self.out = nn.Parameter(torch.empty(width, width))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew, for the cell's place."""
        layer, layers, width = self.place.index, self.place.count, self.width
        depth, rest = layer / max(1, layers - 1), 1 - layer / layers
        each = self.in_width // self.config.perspectives
        channel = torch.arange(each) / each
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
        return TimeState(x, *empty(x.new_zeros(batch, self.out_width)))

    def mix(self, x: Tensor, state: TimeState, given: Given) -> tuple[Tensor, TimeState]:
        """One window of the class's equations."""
        k, v, r = self._mixed(x, state.x, given, {"k": self.mix_k, "v": self.mix_v, "r": self.mix_r})
        count = self.config.perspectives
        decay, bonus = (part.repeat(count) if count > 1 else part for part in (-self.decay.exp(), self.bonus))
        mean, last = softmax_scan(k, v, decay, bonus, Weighted(*state[1:]), given.reset, self.wish, self.name)
        o = torch.sigmoid(r)
        h = self._together(self.linear("out", self._apart(o * mean)))
        new = TimeState(x[:, -1], *last)
        if given.show is not None:
            for name, value in {"o_pre": r, "o": o, "g": v}.items():
                given.show(name, value)
        return h, new

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """3PI + 2N + 3NI + N²."""
        each = in_width // config.perspectives
        return 3 * in_width + 2 * width + 3 * width * each + width * width

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """P (6NI + 2N²)."""
        return 6 * width * in_width + 2 * config.perspectives * width * width


class RWKV4ChannelConfig(PerspectivesConfig):
    """Options of RWKV-4's channel mixing."""

    name: Literal["rwkv4_channel"] = "rwkv4_channel"
    factor: float = Field(default=4.0, gt=0, le=1024, description="hidden width, as a multiple of the width")


class LastInput(NamedTuple):
    """x: (batch, in_width), the last input."""

    x: Tensor


class RWKV4Channel(_Perspectives):
    r"""Channel mixing of RWKV-4 (Peng et al. 2023): a squared-ReLU layer with a gate, that sees two inputs.

    .. math::
        k_t &= W_k (\mu_k \odot x_t + (1 - \mu_k) \odot x_{t-1}), \quad
        r_t = W_r (\mu_r \odot x_t + (1 - \mu_r) \odot x_{t-1}) \\
        h_t &= \sigma(r_t) \odot W_v \max(k_t, 0)^2

    Both μ start as (i/D)^(1-l/L), W_k orthogonal and the others zero, as in the authors' code; see
    :class:`RWKV4`. The traced o is σ(r).

    Parameters 2PI + H(I + N) + NI, for P perspectives with inputs of width I each, and hidden width H.
    """

    Config = RWKV4ChannelConfig
    State = LastInput
    EXAMPLES = (RWKV4ChannelConfig(), RWKV4ChannelConfig(factor=1.5, perspectives=2))
    EQUATION = "h = σ(r) * W_v relu(k)²"
    operation = "linear"
    parameter_rules: Mapping[str, ParameterRule] = {
        **dict.fromkeys(("mix_k", "mix_r"), _MIX),
        **dict.fromkeys(("weight_k", "weight_v", "weight_r"), ParameterRule(drawn=False)),
    }

    def __init__(self, in_width: int, width: int, config: RWKV4ChannelConfig):
        super().__init__(in_width, width, config)
        hidden = hidden_width(config.factor, width)
        self.mix_k, self.mix_r = (self._mixing() for _ in range(2))
        each = in_width // config.perspectives
        self.weight_k = nn.Parameter(torch.empty(hidden, each))
        self.weight_r = nn.Parameter(torch.empty(width, each))
        self.weight_v = nn.Parameter(torch.empty(width, hidden))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew, for the cell's place."""
        each = self.in_width // self.config.perspectives
        start = (torch.arange(each) / each) ** (1 - self.place.index / self.place.count)
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
        k, r = self._mixed(x, state.x, given, {"k": self.mix_k, "r": self.mix_r})
        o, hidden = torch.sigmoid(r), torch.relu(k).square()
        h = o * self._together(self.linear("weight_v", self._apart(hidden)))
        if given.show is not None:
            for name, value in {"o_pre": r, "o": o, "hidden": hidden, "x": x}.items():
                given.show(name, value)
        return h, LastInput(x[:, -1])

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """2PI + H(I + N) + NI."""
        each = in_width // config.perspectives
        return 2 * in_width + hidden_width(config.factor, width) * (each + width) + width * each

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """P (2H(I + N) + 2NI)."""
        hidden = hidden_width(config.factor, width)
        return 2 * hidden * (in_width + config.perspectives * width) + 2 * width * in_width
