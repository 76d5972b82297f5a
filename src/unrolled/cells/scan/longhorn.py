"""Longhorn: a state space that is an online learner."""

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, ParameterRule
from unrolled.cells.mixer import Given, MixerCell
from unrolled.cells.parts.short_conv import ShortConv
from unrolled.cells.scan.mamba import ExpandedState, low_rank
from unrolled.kernels.diag_scan_expanded import diag_scan_expanded
from unrolled.kernels.matrix_scan import delta_scan
from unrolled.kernels.silu_gate import silu_gate

__all__ = ["Longhorn", "LonghornConfig"]


class LonghornConfig(CellConfig):
    """Options of Longhorn."""

    name: Literal["longhorn"] = "longhorn"
    form: Literal["diagonal", "exact"] = Field(
        default="diagonal",
        description="diagonal: what k k' does to the state is taken by its diagonal, as published; exact: all of it, "
        "with one step size a head",
    )
    heads: int = Field(default=1, ge=1, description="step sizes of the exact form; the diagonal one has one a channel")
    expand: int = Field(default=2, ge=1, description="channels, as a multiple of the width")
    states: int = Field(default=16, ge=1, description="states of a channel")
    kernel: int = Field(default=4, ge=2, description="inputs that the convolution sees")


class Longhorn(MixerCell):
    r"""Longhorn (Liu et al. 2024, arXiv:2407.14207): each step is the closed solution of an online regression.

    .. math::
        [u_t, z_t] &= W_{in} x_t, \quad u_t \leftarrow \mathrm{SiLU}(\mathrm{conv}(u)_t) \\
        [l_t, k_t, q_t] &= W_x u_t, \quad \beta_t = \sigma(W_\beta l_t + b_\beta), \quad
        \delta_t = \frac{\beta_t}{1 + \beta_t \lVert k_t \rVert^2} \\
        s_t &= (1 - \delta_t k_t^2) \odot s_{t-1} + \delta_t u_t k_t^\top \\
        h_t &= W_{out} ((s_t q_t + D \odot u_t) \odot \mathrm{SiLU}(z_t))

    s(t) minimises \|s - s(t-1)\|² + β (s k - u)² for each channel, but that its matrix 1 - δ k kᵀ is replaced by its
    diagonal. Form ``exact`` keeps it, which is a delta rule with keys of any length, and shares β among the channels
    of a head. No decay is learned and none is needed: 1 - δ k² lies between 0 and 1. Matrices start as those of
    ``torch.nn.Linear``, D as ones. The rank of l is a sixteenth of the input's width.

    Parameters, with E channels, S states, rank R, kernel K and G step sizes (E, exact: heads):
    2EI + E(K + 1) + E(R + 2S) + G(R + 1) + E + NE.
    """

    Config = LonghornConfig
    State = ExpandedState
    EXAMPLES = (LonghornConfig(states=4), LonghornConfig(form="exact", heads=2, states=3, kernel=3))
    EQUATION = "s = (1-δk²)*s + δ u k; h = W((s q + D*u) * silu(z))"
    recurrent_weights = ("weight_x",)
    parameter_rules = {
        "d": ParameterRule(decay=False, drawn=False),
        "bias_beta": ParameterRule(decay=False),
        "conv.weight": ParameterRule(drawn=False),
    }

    def __init__(self, in_width: int, width: int, config: LonghornConfig):
        super().__init__(in_width, width, config)
        channels, rank = config.expand * width, low_rank(in_width)
        sizes = channels if config.form == "diagonal" else config.heads
        self.weight = nn.Parameter(torch.empty(2 * channels, in_width))
        self.conv = ShortConv(channels, config.kernel, activation="silu")
        self.weight_x = nn.Parameter(torch.empty(rank + 2 * config.states, channels))
        self.weight_beta, self.bias_beta = nn.Parameter(torch.empty(sizes, rank)), nn.Parameter(torch.empty(sizes))
        self.d, self.out = nn.Parameter(torch.empty(channels)), nn.Parameter(torch.empty(width, channels))
        self.reset_parameters()

    @property
    def operation(self) -> str:  # type: ignore[override]
        """A scan of channels, or of a matrix."""
        return "diag_scan_expanded" if self.config.form == "diagonal" else "matrix_scan"

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """What makes the channels a multiple of the heads."""
        return 1 if config.form == "diagonal" else config.heads // math.gcd(config.heads, config.expand)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        for matrix in (self.weight, self.weight_x, self.weight_beta, self.out):
            nn.init.uniform_(matrix, -(matrix.shape[1] ** -0.5), matrix.shape[1] ** -0.5)
        nn.init.uniform_(self.bias_beta, -(self.weight_beta.shape[1] ** -0.5), self.weight_beta.shape[1] ** -0.5)
        self.d.fill_(1)

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> ExpandedState:
        """Zeros."""
        conv = self.conv.initial(batch, device, dtype)
        return ExpandedState(conv.new_zeros(batch, len(self.d) * self.config.states), conv)

    def mix(self, x: Tensor, state: ExpandedState, given: Given) -> tuple[Tensor, ExpandedState]:
        """One window of the class's equations."""
        config, states = self.config, self.config.states
        u, z = self.linear("weight", x).chunk(2, -1)
        u, cache = self.conv(u, state.conv, given.reset, self.wish_for("causal_conv"), self.name)
        low, k, q = self.linear("weight_x", u).split((self.weight_beta.shape[1], states, states), -1)
        into_i = self.linear("weight_beta", low, "bias_beta")
        beta = torch.sigmoid(into_i)
        delta = beta / (1 + beta * k.square().sum(-1, keepdim=True))
        start = state.s.unflatten(-1, (-1, states))
        if config.form == "diagonal":
            y, last = diag_scan_expanded(u, delta, k, None, q, "implicit", start, given.reset, self.wish, self.name)
        else:
            keys, queries = (part.unsqueeze(2).expand(-1, -1, config.heads, -1) for part in (k, q))
            matrix = start.unflatten(1, (config.heads, -1)).transpose(2, 3)  # (batch, heads, keys, values)
            options: dict[str, Any] = {
                "state": matrix,
                "reset": given.reset,
                "backend": self.wish,
                "subject": self.name,
            }
            y, last = delta_scan(queries, keys, u.unflatten(-1, (config.heads, -1)), delta, **options)
            y, last = y.flatten(2), last.transpose(2, 3).flatten(1, 2)
        h = self.linear("out", silu_gate(y, z, self.d, u, self.wish_for("silu_gate"), self.name))
        new = ExpandedState(last.flatten(1), cache)
        if given.show is not None:
            for name, value in {"i_pre": into_i, "i": beta, "delta": delta, "hidden": u}.items():
                given.show(name, value)
        return h, new

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """2EI + E(K + 1) + E(R + 2S) + G(R + 1) + E + NE."""
        channels, rank = config.expand * width, low_rank(in_width)
        sizes = channels if config.form == "diagonal" else config.heads
        each = 2 * in_width + config.kernel + 1 + rank + 2 * config.states + 1 + width
        return channels * each + sizes * (rank + 1)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """4EI + 2E(R + 2S) + 2GR + 2NE, and 4ES where the exact form reads its matrix, by key and by query."""
        channels, rank = config.expand * width, low_rank(in_width)
        sizes = channels if config.form == "diagonal" else config.heads
        read = 0 if config.form == "diagonal" else 4 * channels * config.states
        return 2 * channels * (2 * in_width + rank + 2 * config.states + width) + 2 * sizes * rank + read
