"""Linear recurrent unit."""

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import gelu

from unrolled.cells.base import CellConfig, ParameterRule
from unrolled.cells.feedforward.mlp import hidden_width
from unrolled.cells.mixer import Given, MixerCell
from unrolled.cells.parts.state import ChannelState, as_complex, as_real
from unrolled.kernels.diag_scan import diag_scan

__all__ = ["LRU", "LRUConfig"]

_SLOW = ParameterRule(decay=False, rate=0.25, drawn=False)


class LRUConfig(CellConfig):
    """Options of the linear recurrent unit."""

    name: Literal["lru"] = "lru"
    states: float = Field(
        default=1.0, gt=0, le=1024, description="complex states, as a multiple of the width of the input"
    )
    r_min: float = Field(default=0.0, ge=0, lt=1, description="smallest initial modulus of a state's factor")
    r_max: float = Field(default=1.0, gt=0, le=1, description="largest initial modulus")
    max_phase: float = Field(
        default=2 * math.pi, gt=0, le=2 * math.pi, description="largest initial phase (π/10 for very long inputs)"
    )


class LRU(MixerCell):
    r"""Linear recurrent unit (Orvieto et al. 2023, arXiv:2303.06349), with the nonlinearity of its block behind it.

    .. math::
        s_t &= \lambda \odot s_{t-1} + \gamma \odot (B x_t), \quad \lambda = e^{-e^\nu + i e^\theta} \in \mathbb{C}^S \\
        y_t &= \mathrm{Re}(C s_t) + d \odot x_t, \quad g_t = \mathrm{GELU}(y_t) \\
        h_t &= (W_1 g_t + b_1) \odot \sigma(W_2 g_t + b_2)

    \|λ\|² starts uniform on [r_min², r_max²], the phase on [0, max_phase], γ = √(1 - \|λ\|²) is kept as its logarithm;
    B and C start normal with variance 1/(2I) and 1/S in each part, d normal. The W start as those of
    ``torch.nn.Linear``. ν, θ and log γ learn at a quarter of the rate and without weight decay, as in the paper's
    experiments. GELU is the exact one, where the published code has the one by tanh. Norm, residual path and dropout
    are those of the stack. The traced c has the real parts of s, then the imaginary ones; ``b`` holds B's real rows,
    then its imaginary ones, ``c`` the same in columns, and ``weight`` and ``bias`` W_1, then W_2.

    Parameters 4SI + 3S + I + 2N(I + 1).
    """

    Config = LRUConfig
    State = ChannelState
    EXAMPLES = (LRUConfig(), LRUConfig(states=1.5, r_min=0.5, r_max=0.9, max_phase=0.3))
    EQUATION = "s = λ*s + γ*(B x); h = GLU(gelu(Re(C s) + d*x))"
    operation = "diag_scan"
    parameter_rules = {"nu": _SLOW, "theta": _SLOW, "log_gamma": _SLOW} | dict.fromkeys(
        ("b", "c"), ParameterRule(drawn=False)
    )

    def __init__(self, in_width: int, width: int, config: LRUConfig):
        super().__init__(in_width, width, config)
        states = hidden_width(config.states, in_width)
        self.nu, self.theta, self.log_gamma = (nn.Parameter(torch.empty(states)) for _ in range(3))
        self.b = nn.Parameter(torch.empty(2 * states, in_width))
        self.c = nn.Parameter(torch.empty(in_width, 2 * states))
        self.d = nn.Parameter(torch.empty(in_width))
        self.weight = nn.Parameter(torch.empty(2 * width, in_width))
        self.bias = nn.Parameter(torch.empty(2 * width))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        low, high = self.config.r_min**2, self.config.r_max**2
        # a modulus of 0 or 1 has no finite logarithm of its logarithm
        squared = (low + (high - low) * torch.rand_like(self.nu)).clamp(1e-6, 1 - 1e-6)
        self.nu.copy_((-0.5 * squared.log()).log())
        self.theta.copy_((self.config.max_phase * torch.rand_like(self.theta)).clamp_min(1e-6).log())
        self.log_gamma.copy_(0.5 * torch.log1p(-squared))
        nn.init.normal_(self.b, std=(2 * self.in_width) ** -0.5)
        nn.init.normal_(self.c, std=self.nu.numel() ** -0.5)
        nn.init.normal_(self.d)
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -(self.in_width**-0.5), self.in_width**-0.5)

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> ChannelState:
        """Zeros."""
        return ChannelState(torch.zeros(batch, len(self.b), device=device, dtype=dtype))

    def mix(self, x: Tensor, state: ChannelState, given: Given) -> tuple[Tensor, ChannelState]:
        """One window of the class's equations."""
        factors = torch.exp(torch.complex(-self.nu.exp(), self.theta.exp()))
        written = as_complex(self.linear("b", x) * self.log_gamma.exp().repeat(2))
        states, last = diag_scan(
            factors, written, as_complex(state.c), given.reset, backend=self.wish, subject=self.name
        )
        y = self.linear("c", torch.cat([states.real, -states.imag], -1)) + self.d * x
        value, into_gate = self.linear("weight", gelu(y), "bias").chunk(2, -1)
        h = value * torch.sigmoid(into_gate)
        if given.show is not None:
            for name, shown in {"hidden": y, "c": as_real(states)}.items():
                given.show(name, shown)
        return h, ChannelState(as_real(last))

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """4SI + 3S + I + 2N(I + 1)."""
        states = hidden_width(config.states, in_width)
        return states * (4 * in_width + 3) + in_width + 2 * width * (in_width + 1)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """8SI + 4NI."""
        return 8 * hidden_width(config.states, in_width) * in_width + 4 * width * in_width
