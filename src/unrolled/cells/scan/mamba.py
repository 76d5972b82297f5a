"""Mamba: a selective state space."""

import math
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus

from unrolled.cells.base import CellConfig, ParameterRule, Place
from unrolled.cells.feedforward.mlp import hidden_width
from unrolled.cells.mixer import Given, MixerCell
from unrolled.cells.parts.short_conv import ShortConv
from unrolled.cells.parts.steps import fill_step_bias
from unrolled.kernels.diag_scan_expanded import diag_scan_expanded
from unrolled.kernels.silu_gate import silu_gate

__all__ = ["ExpandedState", "Mamba", "MambaConfig", "low_rank"]


def low_rank(in_width: int) -> int:
    """A sixteenth of the width of the input, rounded up."""
    return -(-in_width // 16)


class ExpandedState(NamedTuple):
    """s: (batch, channels * states), states of a channel side by side. conv: (batch, kernel - 1, channels), the last
    inputs of the convolution."""

    s: Tensor
    conv: Tensor


class MambaConfig(CellConfig):
    """Options of Mamba."""

    name: Literal["mamba"] = "mamba"
    expand: float = Field(default=2.0, gt=0, le=1024, description="channels, as a multiple of the width")
    states: int = Field(default=16, ge=1, description="states of a channel")
    kernel: int = Field(default=4, ge=2, description="inputs that the convolution sees")
    norms: bool = Field(
        default=False, description="l, B and C divided by their root mean square, without gains (Falcon Mamba)"
    )


class Mamba(MixerCell):
    r"""Mamba (Gu and Dao 2023, arXiv:2312.00752): a state space whose step size, input and output depend on the token.

    .. math::
        [u_t, z_t] &= W_{in} x_t, \quad u_t \leftarrow \mathrm{SiLU}(\mathrm{conv}(u)_t) \\
        [l_t, B_t, C_t] &= W_x u_t, \quad \delta_t = \mathrm{softplus}(W_\delta l_t + b_\delta) \\
        s_t &= e^{\delta_t A} s_{t-1} + \delta_t u_t B_t^\top, \quad A = -e^{\alpha} \\
        h_t &= W_{out} ((s_t C_t + D \odot u_t) \odot \mathrm{SiLU}(z_t))

    The input is discretised by Euler's rule, as in the published code, where the paper has a zero-order hold. Starts: A
    is -1 ... -S in every channel, D ones, W_δ uniform within rank^-1/2, b_δ such that δ is log-uniform on [0.001, 0.1]
    but at least 0.0001, the rank of l a sixteenth of the input's width; W_out is divided by √L in a stack of L layers.
    α, D and b_δ are not decayed. With ``norms`` (Zuo et al. 2024, arXiv:2410.05355) l, B and C are each divided by
    the root of their mean square and 10⁻⁶, as in the public code of Falcon Mamba. The published block has a norm by
    root mean square in front and no MLP.

    Parameters, with E channels, S states, rank R and kernel K: 2EI + E(K + 1) + E(R + 2S) + E(R + 1) + E(S + 1) + NE.
    """

    Config = MambaConfig
    State = ExpandedState
    EXAMPLES = (
        MambaConfig(states=4),
        MambaConfig(expand=1.5, states=3, kernel=3),
        MambaConfig(states=5, kernel=2, norms=True),
    )
    EQUATION = "s = exp(δA)*s + δ u B; h = W((s C + D*u) * silu(z))"
    operation = "diag_scan_expanded"
    recurrent_weights = ("weight_x",)
    parameter_rules = {
        "log_a": ParameterRule(decay=False, drawn=False),
        "d": ParameterRule(decay=False, drawn=False),
        "bias_delta": ParameterRule(decay=False, drawn=False),
        "weight_delta": ParameterRule(drawn=False),
        "conv.weight": ParameterRule(drawn=False),
    }

    def __init__(self, in_width: int, width: int, config: MambaConfig):
        super().__init__(in_width, width, config)
        channels, rank = hidden_width(config.expand, width), low_rank(in_width)
        self.weight = nn.Parameter(torch.empty(2 * channels, in_width))
        self.conv = ShortConv(channels, config.kernel, activation="silu")
        self.weight_x = nn.Parameter(torch.empty(rank + 2 * config.states, channels))
        self.weight_delta, self.bias_delta = (
            nn.Parameter(torch.empty(channels, rank)),
            nn.Parameter(torch.empty(channels)),
        )
        self.log_a, self.d = nn.Parameter(torch.empty(channels, config.states)), nn.Parameter(torch.empty(channels))
        self.out = nn.Parameter(torch.empty(width, channels))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew, for the cell's place."""
        for matrix in (self.weight, self.weight_x, self.weight_delta, self.out):
            bound = matrix.shape[1] ** -0.5
            nn.init.uniform_(matrix, -bound, bound)
        self.out /= math.sqrt(self.place.layers)
        fill_step_bias(self.bias_delta)
        self.log_a.copy_(torch.arange(1.0, self.config.states + 1).log())
        self.d.fill_(1)

    def take_place(self, place: Place) -> None:
        """Scale what comes out to the depth of the stack."""
        with torch.no_grad():
            self.out *= math.sqrt(self.place.layers / place.layers)
        super().take_place(place)

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> ExpandedState:
        """Zeros."""
        conv = self.conv.initial(batch, device, dtype)
        return ExpandedState(conv.new_zeros(batch, self.log_a.numel()), conv)

    def mix(self, x: Tensor, state: ExpandedState, given: Given) -> tuple[Tensor, ExpandedState]:
        """One window of the class's equations."""
        states = self.config.states
        u, z = self.linear("weight", x).chunk(2, -1)
        u, cache = self.conv(u, state.conv, given.reset, self.wish_for("causal_conv"), self.name)
        low, b, c = self.linear("weight_x", u).split((self.weight_delta.shape[1], states, states), -1)
        if self.config.norms:
            low, b, c = (part * (part.square().mean(-1, keepdim=True) + 1e-6).rsqrt() for part in (low, b, c))
        delta = softplus(self.linear("weight_delta", low, "bias_delta"))
        start = state.s.unflatten(-1, (-1, states))
        y, last = diag_scan_expanded(u, delta, -self.log_a.exp(), b, c, "zoh", start, given.reset, self.wish, self.name)
        h = self.linear("out", silu_gate(y, z, self.d, u, self.wish_for("silu_gate"), self.name))
        new = ExpandedState(last.flatten(1), cache)
        if given.show is not None:
            for name, value in {"delta": delta, "hidden": u}.items():
                given.show(name, value)
        return h, new

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """2EI + E(K + 1) + E(R + 2S) + E(R + 1) + E(S + 1) + NE."""
        channels, rank, states = hidden_width(config.expand, width), low_rank(in_width), config.states
        return channels * (2 * in_width + config.kernel + 1 + rank + 2 * states + rank + 1 + states + 1 + width)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """4EI + 2E(R + 2S) + 2ER + 2NE."""
        channels, rank = hidden_width(config.expand, width), low_rank(in_width)
        return 2 * channels * (2 * in_width + 2 * rank + 2 * config.states + width)
