"""The damped moving average of Mega, as a cell."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import silu

from unrolled.cells.base import CellConfig, ParameterRule
from unrolled.cells.mixer import Given
from unrolled.cells.ssm.cell import SystemCell, SystemState
from unrolled.cells.ssm.diagonal import Diagonal

__all__ = ["MegaEMA", "MegaEMAConfig", "damped_average", "fill_average"]


class MegaEMAConfig(CellConfig):
    """Options of Mega's damped average."""

    name: Literal["mega_ema"] = "mega_ema"
    modes: int = Field(default=16, ge=1, description="N, averages of a channel")


def damped_average(delta: Tensor, alpha: Tensor, beta: Tensor, gamma: Tensor) -> Diagonal:
    """The system of the damped average, of parameters (channels, modes) each."""
    p = torch.sigmoid(delta)
    return Diagonal(1 - p * torch.sigmoid(alpha), p * beta, gamma * gamma.shape[-1] ** -0.5)


@torch.no_grad()
def fill_average(cell: Any) -> None:
    """Draw delta, alpha, beta, gamma and omega of a cell anew."""
    nn.init.normal_(cell.delta, std=0.2)
    nn.init.normal_(cell.alpha, std=0.2)
    nn.init.normal_(cell.beta, std=0.02)
    cell.beta += 1 - 2 * (torch.arange(cell.beta.shape[1], device=cell.beta.device) % 2)
    nn.init.normal_(cell.gamma)
    nn.init.normal_(cell.omega)


class MegaEMA(SystemCell):
    r"""Multi-dimensional damped exponential moving average (Ma et al. 2023, Mega), with its residual and activation.

    .. math::
        p &= \sigma(\delta), \quad q = 1 - p \odot \sigma(\alpha) \\
        s_t &= q \odot s_{t-1} + p \odot \beta x_t, \quad
        y_t = \mathrm{SiLU} \Big(N^{-1/2} \sum_n \gamma_n s_{t,n} + \omega \odot x_t \Big)

    delta, alpha, beta, gamma are (channels, N) and start at N(0, 0.04), the same, ±1 by turns plus N(0, 0.0004), and
    N(0, 1); omega N(0, 1). Of I inputs and N ≠ I outputs a linear map to the width comes first; with equal widths
    there is none, as published. Mega's attention is another layer.

    Parameters, for width N with M modes: N(4M + 1), and NI where the widths differ.
    """

    Config = MegaEMAConfig
    EXAMPLES = (MegaEMAConfig(), MegaEMAConfig(modes=3))
    EQUATION = "s = q*s + p*beta*x; y = silu(gamma s + omega*x)"

    def __init__(self, in_width: int, width: int, config: MegaEMAConfig):
        super().__init__(in_width, width, config)
        self.delta, self.alpha, self.beta, self.gamma = (
            nn.Parameter(torch.empty(width, config.modes)) for _ in range(4)
        )
        self.omega = nn.Parameter(torch.empty(width))
        self.widen = nn.Linear(in_width, width, bias=False) if in_width != width else None
        fixed = ParameterRule(drawn=False)
        self.parameter_rules = dict.fromkeys(("delta", "alpha", "beta", "gamma"), fixed)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        fill_average(self)
        if self.widen is not None:
            self.widen.reset_parameters()

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> SystemState:
        """Zeros."""
        return SystemState(torch.zeros(batch, self.width, self.config.modes, device=device, dtype=dtype))

    def system(self) -> Diagonal:
        """q, p beta and the scaled gamma."""
        return damped_average(self.delta, self.alpha, self.beta, self.gamma)

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, SystemState]:
        """One window of the class's equations."""
        u = x if self.widen is None else self.linear("widen.weight", x)
        y, new = self.drive(u, state, given)
        h = silu(y + self.omega * u)
        return h, new

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """N(4M + 1), + NI where the widths differ."""
        return width * (4 * config.modes + 1) + (width * in_width if in_width != width else 0)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2NI where the widths differ."""
        return 2 * width * in_width if in_width != width else 0
