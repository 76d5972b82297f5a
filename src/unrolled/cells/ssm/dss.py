"""DSS: diagonal state spaces whose modes all channels share."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import gelu

from unrolled.cells.base import CellConfig, ParameterRule
from unrolled.cells.mixer import Given
from unrolled.cells.ssm.cell import SystemCell, SystemState
from unrolled.cells.ssm.diagonal import Diagonal, complex_of, expm1
from unrolled.cells.ssm.inits import log_steps, skew_modes

__all__ = ["DSS", "DSSConfig"]

_SMALL = 1e-7  # as published: keeps 1/x of complex numbers finite


class DSSConfig(CellConfig):
    """Options of DSS."""

    name: Literal["dss"] = "dss"
    modes: int = Field(default=64, ge=1, description="N, complex modes, shared by the channels")
    form: Literal["exp", "softmax"] = Field(
        default="softmax", description="how a mode is scaled: by its integral over a step, or to sum to 1 over `length`"
    )
    length: int = Field(default=1024, ge=1, description="steps over which a mode of the form softmax sums to 1")
    dt_min: float = Field(default=1e-3, gt=0, description="least step size at the start")
    dt_max: float = Field(default=0.1, gt=0, description="largest step size at the start")
    rate: float = Field(
        default=0.25, gt=0, description="factor on the learning rate of step sizes, modes and weights (published: 1e-3)"
    )


class DSS(SystemCell):
    r"""Diagonal state spaces (Gupta, Gu and Berant 2022), the whole layer; one system for each input channel.

    .. math::
        \Lambda_n &= -e^{p_n} + i \omega_n, \quad z_n = \Delta_{re} \mathrm{Re} \Lambda_n + i \Delta_{im} \mathrm{Im}
            \Lambda_n \\
        \text{exp: } K_l &= \mathrm{Re} \sum_n W_n \frac{e^{z_n} - 1}{\Lambda_n} e^{l z_n}, \quad
        \text{softmax: } K_l = \mathrm{Re} \sum_n \frac{W_n}{\Lambda_n} \frac{e^{l z_n}}{\sum_{r < L} e^{r z_n}} \\
        y_t &= \sum_{l \le t} K_l u_{t-l} + D u_t, \quad h_t = W_o \mathrm{GELU}(y_t) + b

    All N modes are kept, shared by the channels; W is complex normal with parts of variance 1, Delta's two parts start
    alike, Lambda at the eigenvalues of HiPPO's skew part. The recurrence is s_t = e^z s_{t-1} + u_t, read through the
    scaled W. Deviations: the published softmax form lets Re Lambda be positive and sums over the window at hand, so
    that a mode may grow for ever and a window's output depends on its length; here Re Lambda < 0 in both forms, and
    the sum runs over ``length`` steps whatever the window (with windows of that length it is the published one). e^z -
    1 by expm1. Both 1/x are published with a guard of 1e-7, which stays. I inputs make N outputs in the last map.

    Parameters, with M modes: 2M + I(2 + 2M + 1) + N(I + 1).
    """

    Config = DSSConfig
    EXAMPLES = (
        DSSConfig(modes=6, length=16),
        DSSConfig(modes=4, form="exp"),
        DSSConfig(modes=3, length=5, dt_min=0.1, dt_max=1.0, rate=1.0),
    )
    EQUATION = "s = a*s + x; y = W gelu(Re(c s) + d*x)"

    def __init__(self, in_width: int, width: int, config: DSSConfig):
        super().__init__(in_width, width, config)
        self.log_dt = nn.Parameter(torch.empty(in_width, 2))
        self.log_decay = nn.Parameter(torch.empty(config.modes))
        self.frequency = nn.Parameter(torch.empty(config.modes))
        self.c = nn.Parameter(torch.empty(in_width, config.modes, 2))
        self.skip = nn.Parameter(torch.empty(in_width))
        self.weight = nn.Parameter(torch.empty(width, in_width))
        self.bias = nn.Parameter(torch.empty(width))
        slow = ParameterRule(decay=False, rate=config.rate, drawn=False)
        self.parameter_rules = dict.fromkeys(("log_dt", "log_decay", "frequency", "c"), slow)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        a = skew_modes(self.config.modes)
        with torch.no_grad():
            steps = log_steps(self.in_width, self.config.dt_min, self.config.dt_max)
            self.log_dt.copy_(steps.unsqueeze(1).expand_as(self.log_dt))
            self.log_decay.copy_(torch.log(-a.real))
            self.frequency.copy_(a.imag)
        nn.init.normal_(self.c)
        nn.init.normal_(self.skip)
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -(self.in_width**-0.5), self.in_width**-0.5)

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> SystemState:
        """Zeros."""
        return SystemState(torch.zeros(batch, self.in_width, self.config.modes, 2, device=device, dtype=dtype))

    def system(self) -> Diagonal:
        """e^z, 1 and the scaled W."""
        decay, (fine, coarse) = torch.exp(self.log_decay), torch.exp(self.log_dt).unsqueeze(1).unbind(-1)
        a = torch.complex(-decay, self.frequency)
        z = torch.complex(-fine * decay, coarse * self.frequency)
        if self.config.form == "exp":
            scale = expm1(z) * a.conj() / (a.real.square() + a.imag.square()).clamp(min=_SMALL)
        else:
            total = expm1(z * self.config.length) * a
            scale = expm1(z) * total.conj() / (total.real.square() + total.imag.square() + _SMALL)
        return Diagonal(torch.exp(z), torch.ones_like(z), complex_of(self.c) * scale)

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, SystemState]:
        """One window of the class's equations."""
        y, new = self.drive(x, state, given)
        h = self.linear("weight", gelu(y + self.skip * x), "bias")
        return h, new

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """2M + I(2M + 3) + N(I + 1)."""
        return 2 * config.modes + in_width * (2 * config.modes + 3) + width * (in_width + 1)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2NI."""
        return 2 * width * in_width
