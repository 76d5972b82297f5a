"""GSS: a gated state space on few channels."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

from unrolled.cells.base import CellConfig, ParameterRule
from unrolled.cells.mixer import Given
from unrolled.cells.ssm.cell import SystemCell, SystemState
from unrolled.cells.ssm.diagonal import Diagonal, complex_of, expm1

__all__ = ["GSS", "GSSConfig"]

_EPSILON = 1e-5


class GSSConfig(CellConfig):
    """Options of GSS."""

    name: Literal["gss"] = "gss"
    modes: int = Field(default=512, ge=1, description="complex modes, shared by the channels")
    inner: float = Field(default=0.25, gt=0, le=64, description="channels with a system, as a multiple of the width")
    gate: float = Field(default=4.0, gt=0, le=64, description="width of the gate, as a multiple of the width")
    rate: float = Field(default=0.25, gt=0, description="factor on the learning rate of the modes")


class GSS(SystemCell):
    r"""Gated state spaces (Mehta, Gupta, Cutkosky and Neyshabur 2022), the whole layer.

    .. math::
        u &= \mathrm{GELU}(W_1 x), \quad v = \mathrm{LN}(\mathrm{GELU}(W_2 x)), \quad
        \Lambda_n = -e^{p_n} + i e^{q_n} \\
        K_l &= \mathrm{Re} \sum_n C_n \frac{e^{\Lambda_n} - 1}{\Lambda_n} e^{l \Lambda_n}, \quad
        y_t = \sum_{l \le t} K_l v_{t-l} + D v_t, \quad h = W_4 ((W_3 y) \odot u) + b

    A DSS of step 1 on ``inner`` of the width, without the softmax; Lambda is shared by the channels. p, q, D and both
    parts of C start normal, maps as ``torch.nn.Linear``, W_1 to W_3 without a bias. The norm of v and D are of the
    paper's pseudocode. In a stack of kind "residual" this is the published block with its norm in front. The modes have
    no weight decay and a learning rate lower by ``rate``.

    Parameters, with H = inner N, F = gate N and M modes: I(F + H) + HF + FN + N + 3H + 2M(H + 1).
    """

    Config = GSSConfig
    EXAMPLES = (GSSConfig(modes=6, inner=0.5), GSSConfig(modes=3, inner=1.0, gate=2.0, rate=1.0))
    EQUATION = "s = a*s + b*v; y = W_4((W_3(Re(c s) + d*v)) * u)"

    def __init__(self, in_width: int, width: int, config: GSSConfig):
        super().__init__(in_width, width, config)
        inner, gate = self._widths(config, width)
        self.log_decay = nn.Parameter(torch.empty(config.modes))
        self.log_frequency = nn.Parameter(torch.empty(config.modes))
        self.c = nn.Parameter(torch.empty(inner, config.modes, 2))
        self.skip = nn.Parameter(torch.empty(inner))
        self.norm = nn.LayerNorm(inner, _EPSILON)
        self.to_gate = nn.Linear(in_width, gate, bias=False)
        self.to_inner = nn.Linear(in_width, inner, bias=False)
        self.widen = nn.Linear(inner, gate, bias=False)
        self.out = nn.Linear(gate, width)
        slow = ParameterRule(decay=False, rate=config.rate, drawn=False)
        rules = dict.fromkeys(("log_decay", "log_frequency"), slow)
        self.parameter_rules = {**rules, "c": ParameterRule(drawn=False)}
        self.reset_parameters()

    @staticmethod
    def _widths(config: Any, width: int) -> tuple[int, int]:
        """Channels with a system, and those of the gate."""
        return max(1, round(config.inner * width)), max(1, round(config.gate * width))

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        for parameter in (self.log_decay, self.log_frequency, self.c, self.skip):
            nn.init.normal_(parameter)
        for part in (self.norm, self.to_gate, self.to_inner, self.widen, self.out):
            part.reset_parameters()

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> SystemState:
        """Zeros."""
        return SystemState(torch.zeros(batch, len(self.c), self.config.modes, 2, device=device, dtype=dtype))

    def system(self) -> Diagonal:
        """e^Lambda, its integral over a step, and C."""
        a = torch.complex(-torch.exp(self.log_decay), torch.exp(self.log_frequency))
        c = complex_of(self.c)
        return Diagonal(torch.exp(a).expand_as(c), (expm1(a) / a).expand_as(c), c)

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, SystemState]:
        """One window of the class's equations."""
        u = gelu(self.linear("to_gate.weight", x))
        v = gelu(self.linear("to_inner.weight", x))
        v = layer_norm(v, v.shape[-1:], self.norm.weight, self.norm.bias, _EPSILON)
        y, new = self.drive(v, state, given)
        hidden = self.linear("widen.weight", y + self.skip * v) * u
        h = self.linear("out.weight", hidden, "out.bias")
        if given.show is not None:
            given.show("hidden", hidden)
        return h, new

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """I(F + H) + HF + FN + N + 3H + 2M(H + 1)."""
        inner, gate = cls._widths(config, width)
        products = in_width * (gate + inner) + inner * gate + gate * width
        return products + width + 3 * inner + 2 * config.modes * (inner + 1)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2(I(F + H) + HF + FN)."""
        inner, gate = cls._widths(config, width)
        return 2 * (in_width * (gate + inner) + inner * gate + gate * width)
