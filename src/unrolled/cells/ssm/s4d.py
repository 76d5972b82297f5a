"""S4D: diagonal state spaces with the spectra of S4."""

from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.functional import gelu

from unrolled.cells.base import CellConfig, ParameterRule
from unrolled.cells.mixer import Given
from unrolled.cells.ssm.cell import SystemCell, SystemState
from unrolled.cells.ssm.diagonal import Diagonal, complex_of, expm1
from unrolled.cells.ssm.inits import log_steps, s4d_modes
from unrolled.core.errors import UsageError

__all__ = ["S4D", "GatedOutput", "S4DConfig", "SpaceConfig"]


class SpaceConfig(CellConfig):
    """Options that S4 and S4D share. Base of their configs."""

    modes: int = Field(default=64, ge=2, description="N, numbers of state of a channel; even: conjugate pairs")
    dt_min: float = Field(default=1e-3, gt=0, description="least step size at the start")
    dt_max: float = Field(default=0.1, gt=0, description="largest step size at the start")
    rate: float = Field(
        default=0.25,
        gt=0,
        description="factor on the learning rate of step sizes and spectra (published: at most 1e-3)",
    )

    @field_validator("modes")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise UsageError(f"modes come in conjugate pairs, so their number is even, not {value}; try {value + 1}.")
        return value


class S4DConfig(SpaceConfig):
    """Options of S4D."""

    name: Literal["s4d"] = "s4d"
    init: Literal["lin", "inv", "real", "legs"] = Field(
        default="lin", description="spectrum at the start: S4D-Lin, -Inv, -Real, or that of LegS's normal part"
    )
    discretisation: Literal["zoh", "bilinear"] = Field(
        default="zoh", description="from the continuous system to steps: zero-order hold, or bilinear"
    )


class GatedOutput(SystemCell):
    """A :class:`SystemCell` with the skip D and the published output: GELU, a map to 2N numbers, of which a GLU.

    ``skip`` (in_width,); ``weight`` (2 width, in_width) and ``bias`` (2 width,), blocks value, gate.
    """

    def make_output(self) -> None:
        """The parameters of the output."""
        self.skip = nn.Parameter(torch.empty(self.in_width))
        self.weight = nn.Parameter(torch.empty(2 * self.width, self.in_width))
        self.bias = nn.Parameter(torch.empty(2 * self.width))

    def draw_output(self) -> None:
        """Draw them: D normal, the map as ``torch.nn.Linear``."""
        nn.init.normal_(self.skip)
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -(self.in_width**-0.5), self.in_width**-0.5)

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, SystemState]:
        """One window of the class's equations."""
        y, new = self.drive(x, state, given)
        value, gate = self.linear("weight", gelu(y + self.skip * x), "bias").chunk(2, -1)
        h = value * torch.sigmoid(gate)
        return h, new

    @classmethod
    def output_params(cls, in_width: int, width: int) -> int:
        """I + 2NI + 2N."""
        return in_width + 2 * width * (in_width + 1)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """4NI."""
        return 4 * width * in_width


class S4D(GatedOutput):
    r"""Diagonal state space (Gu, Gupta, Goel and Ré 2022), the whole layer, one system for each input channel.

    .. math::
        x'(t) &= A x(t) + B u(t), \quad B = 1, \quad A_n = -e^{p_n} + i \omega_n, \quad n < N/2 \\
        \text{zoh: } \bar A &= e^{\Delta A}, \quad \bar B = (\bar A - 1) / A \\
        \text{bilinear: } \bar A &= (1 + \Delta A/2) / (1 - \Delta A/2), \quad \bar B = \Delta / (1 - \Delta A/2) \\
        x_t &= \bar A x_{t-1} + \bar B u_t, \quad y_t = 2 \mathrm{Re}(C x_t) + D u_t \\
        h_t &= \mathrm{GLU}(W \mathrm{GELU}(y_t) + b)

    One of each conjugate pair of modes is kept, hence the 2. Starts: lin -1/2 + i pi n; inv -1/2 + i N/pi (N/(2n+1) -
    1); real -(n+1); legs the eigenvalues of LegS's normal part; C complex normal, D normal, log Delta even between
    ``dt_min`` and ``dt_max``. Delta and A have no weight decay and a learning rate lower by ``rate``. A window is a
    convolution with K_l = 2 Re(C Ā^l B̄), a step is the recurrence. Deviations: B̄ by expm1, since the published
    difference loses digits at small Delta; I inputs make N outputs in the last map; no dropout inside. In a stack of
    kind "residual" this is the published block with its norm in front.

    Parameters, with M modes: I(1 + 2M) for the systems, I + 2N(I + 1) for the output.
    """

    Config = S4DConfig
    EXAMPLES = (
        S4DConfig(modes=8),
        S4DConfig(modes=4, init="inv", discretisation="bilinear"),
        S4DConfig(modes=4, init="legs", dt_min=0.01, dt_max=1.0, rate=1.0),
        S4DConfig(modes=2, init="real"),
    )
    EQUATION = "s = a*s + b*x; y = GLU(W gelu(Re(c s) + d*x))"

    def __init__(self, in_width: int, width: int, config: S4DConfig):
        super().__init__(in_width, width, config)
        pairs = config.modes // 2
        self.log_dt = nn.Parameter(torch.empty(in_width))
        self.log_decay = nn.Parameter(torch.empty(in_width, pairs))
        self.frequency = nn.Parameter(torch.empty(in_width, pairs))
        self.c = nn.Parameter(torch.empty(in_width, pairs, 2))
        self.make_output()
        slow = ParameterRule(decay=False, rate=config.rate, drawn=False)
        self.parameter_rules = {
            **dict.fromkeys(("log_dt", "log_decay", "frequency"), slow),
            "c": ParameterRule(drawn=False),
        }
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        a = s4d_modes(self.config.init, self.config.modes)
        with torch.no_grad():
            self.log_dt.copy_(log_steps(self.in_width, self.config.dt_min, self.config.dt_max))
            self.log_decay.copy_(torch.log(-a.real).expand_as(self.log_decay))
            self.frequency.copy_(a.imag.expand_as(self.frequency))
            # a complex normal number of variance 1
            self.c.normal_(0, 0.5**0.5)
        self.draw_output()

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> SystemState:
        """Zeros."""
        return SystemState(torch.zeros(batch, self.in_width, self.config.modes // 2, 2, device=device, dtype=dtype))

    def system(self) -> Diagonal:
        """Ā, B̄ and 2C."""
        a = torch.complex(-torch.exp(self.log_decay), self.frequency)
        dt = torch.exp(self.log_dt).unsqueeze(-1)
        z = dt * a
        if self.config.discretisation == "zoh":
            bar, b = torch.exp(z), expm1(z) / a
        else:
            bar, b = (1 + 0.5 * z) / (1 - 0.5 * z), dt / (1 - 0.5 * z)
        return Diagonal(bar, b, 2 * complex_of(self.c))

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """I(1 + 2M) + I + 2N(I + 1)."""
        return in_width * (1 + 2 * config.modes) + cls.output_params(in_width, width)
