"""LSSL: the linear state-space layer with a full matrix."""

import math
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from unrolled.cells.base import CellConfig, ParameterRule
from unrolled.cells.mixer import Given
from unrolled.cells.ssm.cell import SystemCell, SystemState
from unrolled.cells.ssm.dense import Dense
from unrolled.cells.ssm.inits import legs, log_steps
from unrolled.kernels.diag_scan import diag_scan

__all__ = ["LSSL", "LSSLConfig", "bilinear"]


class LSSLConfig(CellConfig):
    """Options of LSSL."""

    name: Literal["lssl"] = "lssl"
    modes: int = Field(default=64, ge=1, description="N, numbers of state of a channel")
    outputs: int = Field(default=1, ge=1, description="M, outputs of a channel's system")
    learn_steps: bool = Field(default=True, description="whether step sizes are trained; else fixed, evenly spread")
    dt_min: float = Field(default=1e-3, gt=0, description="least step size at the start")
    dt_max: float = Field(default=0.1, gt=0, description="largest step size at the start")
    rate: float = Field(default=0.25, gt=0, description="factor on the learning rate of step sizes (published: 1e-3)")


def bilinear(log_dt: Tensor, modes: int) -> tuple[Tensor, Tensor]:
    """LegS in steps: (I - Delta/2 A)^-1 (I + Delta/2 A) and (I - Delta/2 A)^-1 Delta B, (channels, N, N) and (channels,
    N), solved in float64 for log Delta (channels,)."""
    a, b = (part.to(log_dt.device) for part in legs(modes))
    dt = torch.exp(log_dt.double()).view(-1, 1, 1)
    eye = torch.eye(modes, dtype=a.dtype, device=a.device)
    right = torch.cat([eye + 0.5 * dt * a, dt * b.unsqueeze(1)], 2)
    found = torch.linalg.solve_triangular(eye - 0.5 * dt * a, right, upper=False).to(log_dt.dtype)
    return found[..., :-1], found[..., -1]


class Legs(NamedTuple):
    """LegS for each channel. log_dt: (channels,). c: (channels, outputs, N). States: (rows, channels, N)."""

    log_dt: Tensor
    c: Tensor

    def dense(self) -> Dense:
        """The same system with its matrices written out."""
        a, b = bilinear(self.log_dt, self.c.shape[2])
        return Dense(a.transpose(1, 2), b, self.c)

    def window(self, u: Tensor, start: Tensor, wish: str, subject: str) -> tuple[Tensor, Tensor]:
        """Outputs (rows, time, channels * outputs) of a window, and the state after it."""
        return self.dense().window(u, start, wish, subject)

    def outputs(self, u: Tensor, start: Tensor, wish: str, subject: str) -> Tensor:
        """Those of :meth:`window`."""
        return self.window(u, start, wish, subject)[0]

    def final(self, u: Tensor, start: Tensor) -> Tensor:
        """The state after a window."""
        return self.dense().final(u, start)

    def step(self, s: Tensor, u: Tensor) -> Tensor:
        """s(t) of s(t-1) (rows, channels, N) and u(t) (rows, channels), in O(N).

        Below its diagonal LegS is a product of a column and a row, so that A s needs a running sum over n, and the
        solution of (I - dt/2 A) s(t) = ... a recurrence over n, which is a ``diag_scan``.
        """
        n = torch.arange(s.shape[2], dtype=s.dtype, device=s.device)
        root, half = (2 * n + 1).sqrt(), 0.5 * torch.exp(self.log_dt).unsqueeze(1)
        below = (root * s).cumsum(2) - root * s
        right = s - half * (root * below + (n + 1) * s) + 2 * half * root * u.unsqueeze(2)
        diagonal = 1 + half * (n + 1)
        factors, driven = 1 - half * (2 * n + 1) / diagonal, root * right / diagonal
        sums, _ = diag_scan(factors.t(), driven.transpose(1, 2), subject="LegS")
        before = pad(sums[:, :-1], (0, 0, 1, 0)).transpose(1, 2)
        return (right - half * root * before) / diagonal

    def steps(
        self, u: Tensor, start: Tensor, reset: Tensor | None, wish: str, subject: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A window step by step; the reference by the matrices themselves."""
        if wish == "reference":
            return self.dense().steps(u, start, reset, wish, subject)
        s, states = start, []
        resets = [None] * u.shape[1] if reset is None else reset.unbind(1)
        for u_t, reset_t in zip(u.unbind(1), resets, strict=True):
            s = self.step(s if reset_t is None else s.masked_fill(reset_t.view(-1, 1, 1), 0), u_t)
            states.append(s)
        found = torch.stack(states, 1)
        return (found.unsqueeze(3) * self.c).sum(-1).flatten(2), s, found


class LSSL(SystemCell):
    r"""Linear state-space layer (Gu et al. 2021) with the fixed HiPPO-LegS matrix; one system for each input channel.

    .. math::
        x'(t) &= A x(t) + B u(t), \quad A_{nk} = -\sqrt{(2n+1)(2k+1)} \; (n > k), \; -(n+1) \; (n = k), \; 0 \;
            (n < k), \quad B_n = \sqrt{2n+1} \\
        \bar A &= (I - \Delta/2 \, A)^{-1} (I + \Delta/2 \, A), \quad \bar B = (I - \Delta/2 \, A)^{-1} \Delta B \\
        x_t &= \bar A x_{t-1} + \bar B u_t, \quad y_t = C x_t + D u_t \in R^M, \quad h_t = W \mathrm{GELU}(y_t) + b

    A and B are not trained; the paper's learned A is left out. Delta is one per channel: its logarithm is drawn evenly
    and trained at a lower rate and without decay, or (``learn_steps`` off) spread evenly over the channels for good. C
    and D start normal, W as ``torch.nn.Linear``. Windows are convolutions with K_l = C Ā^l B̄, whose rows B̄ Ā^l are
    made by doubling; Ā and B̄ are solved in float64. A single step costs O(S). I inputs make N outputs in W.

    Parameters, with state S: I(MS + M) + MIN + N, and I for trained steps.
    """

    Config = LSSLConfig
    EXAMPLES = (LSSLConfig(modes=6), LSSLConfig(modes=3, outputs=2, learn_steps=False, dt_min=0.05, dt_max=1.0))
    EQUATION = "s = A s + B x; y = W gelu(C s + D x)"

    def __init__(self, in_width: int, width: int, config: LSSLConfig):
        super().__init__(in_width, width, config)
        self.log_dt = nn.Parameter(torch.empty(in_width)) if config.learn_steps else None
        slow = ParameterRule(decay=False, rate=config.rate, drawn=False)
        self.parameter_rules = {"log_dt": slow} if config.learn_steps else {}
        self.c = nn.Parameter(torch.empty(in_width, config.outputs, config.modes))
        self.skip = nn.Parameter(torch.empty(in_width, config.outputs))
        self.weight = nn.Parameter(torch.empty(width, in_width * config.outputs))
        self.bias = nn.Parameter(torch.empty(width))
        self.parameter_rules |= dict.fromkeys(("c", "skip"), ParameterRule(drawn=False))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        if self.log_dt is not None:
            with torch.no_grad():
                self.log_dt.copy_(log_steps(self.in_width, self.config.dt_min, self.config.dt_max))
        nn.init.normal_(self.c)
        nn.init.normal_(self.skip)
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -(self.weight.shape[1] ** -0.5), self.weight.shape[1] ** -0.5)

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> SystemState:
        """Zeros."""
        return SystemState(torch.zeros(batch, self.in_width, self.config.modes, device=device, dtype=dtype))

    def system(self) -> Legs:
        """Delta and C."""
        log_dt = self.log_dt
        if log_dt is None:
            low, high = math.log(self.config.dt_min), math.log(self.config.dt_max)
            log_dt = torch.linspace(low, high, self.in_width, dtype=self.c.dtype, device=self.c.device)
        return Legs(log_dt, self.c)

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, SystemState]:
        """One window of the class's equations."""
        y, new = self.drive(x, state, given)
        skipped = (x.unsqueeze(-1) * self.skip).flatten(2)
        h = self.linear("weight", gelu(y + skipped), "bias")
        return h, new

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """I(MS + M) + MIN + N, + I for trained steps."""
        systems = in_width * config.outputs * (config.modes + 1) + in_width * config.learn_steps
        return systems + width * (config.outputs * in_width + 1)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2IS² + 2MIN."""
        return 2 * in_width * (config.modes**2 + config.outputs * width)
