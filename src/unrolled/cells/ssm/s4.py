"""S4: the structured state space, diagonal plus rank one."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from unrolled.cells.base import ParameterRule
from unrolled.cells.ssm.cell import SystemState
from unrolled.cells.ssm.diagonal import complex_of
from unrolled.cells.ssm.dplr import Dplr
from unrolled.cells.ssm.inits import log_steps, normal_modes
from unrolled.cells.ssm.s4d import GatedOutput, SpaceConfig

__all__ = ["S4", "S4Config"]


class S4Config(SpaceConfig):
    """Options of S4."""

    name: Literal["s4"] = "s4"
    shared: bool = Field(
        default=True, description="one Lambda, p and b for all channels (false: each its own, as the first code of S4)"
    )


class S4(GatedOutput):
    r"""Structured state space (Gu, Goel and Ré 2022), diagonal plus rank one, the whole layer; one for each channel.

    .. math::
        x'(t) &= (\Lambda - p p^*) x(t) + b u(t), \quad \Lambda_n = -e^{r_n} + i \omega_n \\
        \bar A &= (\tfrac{2}{\Delta} - A)^{-1} (\tfrac{2}{\Delta} + A), \quad
            \bar B = (\tfrac{2}{\Delta} - A)^{-1} 2 b \quad \text{(bilinear)} \\
        x_t &= \bar A x_{t-1} + \bar B u_t, \quad y_t = 2 \mathrm{Re}(C x_t) + D u_t, \quad
            h_t = \mathrm{GLU}(W \mathrm{GELU}(y_t) + b)

    Of each conjugate pair of modes one is kept. Lambda, p and b start as HiPPO-LegS in the basis where it is normal
    plus rank one, and are shared by the channels where ``shared``; C complex normal, D normal, log Delta even between
    ``dt_min`` and ``dt_max``. Lambda, p, b and Delta have no weight decay and a learning rate lower by ``rate``. A step
    costs O(N).
    The filter of a window is the inverse transform of its generating function, multiplied through so that the root -1
    is no pole; the state before a window and after it go through powers of Ā as a full matrix.

    Deviations: C is trained, where the published code trains C(I - Ā^L) for one fixed length; so a step needs no power
    of Ā, and windows of any length are exact. Windows of fewer than 64 steps take the filter from the powers of Ā. I
    inputs make N outputs in the last map; no dropout inside.

    Parameters, with M modes: 3M + I(1 + M) for the systems, not shared 3MI + I(1 + M), I + 2N(I + 1) for the output.
    """

    Config = S4Config
    EXAMPLES = (
        S4Config(modes=8),
        S4Config(modes=4, dt_min=0.05, dt_max=0.5, rate=1.0),
        S4Config(modes=4, shared=False),
    )
    EQUATION = "s = A s + B x; y = GLU(W gelu(Re(c s) + d*x))"

    def __init__(self, in_width: int, width: int, config: S4Config):
        super().__init__(in_width, width, config)
        pairs = config.modes // 2
        channels = () if config.shared else (in_width,)
        self.log_dt = nn.Parameter(torch.empty(in_width))
        self.log_decay = nn.Parameter(torch.empty(*channels, pairs))
        self.frequency = nn.Parameter(torch.empty(*channels, pairs))
        self.p = nn.Parameter(torch.empty(*channels, pairs, 2))
        self.b = nn.Parameter(torch.empty(*channels, pairs, 2))
        self.c = nn.Parameter(torch.empty(in_width, pairs, 2))
        self.make_output()
        slow = ParameterRule(decay=False, rate=config.rate, drawn=False)
        rules = dict.fromkeys(("log_dt", "log_decay", "frequency", "p", "b"), slow)
        self.parameter_rules = {**rules, "c": ParameterRule(drawn=False)}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        modes, p, b = normal_modes(self.config.modes)
        with torch.no_grad():
            self.log_dt.copy_(log_steps(self.in_width, self.config.dt_min, self.config.dt_max))
            self.log_decay.copy_(torch.log(-modes.real))
            self.frequency.copy_(modes.imag)
            self.p.copy_(torch.view_as_real(p))
            self.b.copy_(torch.view_as_real(b))
            # a complex normal number of variance 1
            self.c.normal_(0, 0.5**0.5)
        self.draw_output()

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> SystemState:
        """Zeros."""
        return SystemState(torch.zeros(batch, self.in_width, self.config.modes // 2, 2, device=device, dtype=dtype))

    def system(self) -> Dplr:
        """Lambda, p, b, C and Delta."""
        modes = torch.complex(-torch.exp(self.log_decay), self.frequency)
        p, b, c = (complex_of(part) for part in (self.p, self.b, self.c))
        return Dplr(modes, p, b, c, torch.exp(self.log_dt))

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """3M + I(1 + M) + I + 2N(I + 1); 3MI in place of 3M where each channel has its own."""
        systems = 3 * config.modes * (1 if config.shared else in_width) + in_width * (1 + config.modes)
        return systems + cls.output_params(in_width, width)
