"""Minimal GRU."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig
from unrolled.cells.feedforward.mlp import hidden_width
from unrolled.cells.mixer import Given, MixerCell
from unrolled.cells.parts.state import ChannelState
from unrolled.kernels.diag_scan import diag_scan

__all__ = ["MinGRU", "MinGRUConfig", "Minimal", "MinimalConfig", "positive"]


def positive(x: Tensor) -> Tensor:
    """g of the log-space variants: x + 1/2 from 0 on, the logistic function below."""
    return torch.where(x >= 0, x + 0.5, torch.sigmoid(x))


class MinimalConfig(CellConfig):
    """Options of the minimal GRU and LSTM."""

    form: Literal["plain", "log"] = Field(
        default="plain", description="plain: the candidate is what the matrix gives; log: g of it, which is positive"
    )
    expansion: float = Field(
        default=1.0,
        gt=0,
        le=1024,
        description="state width as a multiple of the width; but for 1 a matrix brings it back",
    )


class MinGRUConfig(MinimalConfig):
    """Options of the minimal GRU."""

    name: Literal["mingru"] = "mingru"


class Minimal(MixerCell):
    """What minGRU and minLSTM share: c(t) = k c(t-1) + (1 - k) n; k, the share kept, and n are of the input alone.

    Attributes:
        blocks: of ``weight`` and ``bias``, the candidate last.
    """

    State = ChannelState
    zoneout_fields = ("c",)
    recurrent_weights = ("weight",)
    operation = "diag_scan"
    blocks: int

    def __init__(self, in_width: int, width: int, config: MinimalConfig):
        super().__init__(in_width, width, config)
        hidden = self.states(config, width)
        self.weight = nn.Parameter(torch.empty(self.blocks * hidden, in_width))
        self.bias = nn.Parameter(torch.empty(self.blocks * hidden))
        self.out = None if config.expansion == 1 else nn.Parameter(torch.empty(width, hidden))
        self.reset_parameters()

    @staticmethod
    def states(config: MinimalConfig, width: int) -> int:
        """Width of the state."""
        return hidden_width(config.expansion, width)

    def reset_parameters(self) -> None:
        """Draw the weights anew, as those of ``torch.nn.Linear``."""
        for parameter in self.parameters():
            fan_in = self.in_width if parameter is not self.out else parameter.shape[1]
            nn.init.uniform_(parameter, -(fan_in**-0.5), fan_in**-0.5)

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> ChannelState:
        """Zeros."""
        return ChannelState(torch.zeros(batch, self.states(self.config, self.width), device=device, dtype=dtype))

    def kept(self, gates: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """The logit of the share kept, from the gates' pre-activations, and what is to be shown of them."""
        raise NotImplementedError

    def mix(self, x: Tensor, state: ChannelState, given: Given) -> tuple[Tensor, ChannelState]:
        """One window of the class's equations."""
        *gates, candidate = self.linear("weight", x, "bias").chunk(self.blocks, -1)
        n = positive(candidate) if self.config.form == "log" else candidate
        logit, seen = self.kept(tuple(gates))
        # 1 - k by a function of its own: nothing is lost where k is near 1
        a, b = torch.sigmoid(logit), torch.sigmoid(-logit) * n
        zones = given.zoneout.get("c")
        if zones is not None:
            a, b = zones + (1 - zones) * a, (1 - zones) * b
        c, last = diag_scan(a, b, state.c, given.reset, backend=self.wish, subject=self.name)
        h = c if self.out is None else self.linear("out", c)
        if given.show is not None:
            for name, value in (seen | {"n_pre": candidate, "n": n, "c": c}).items():
                given.show(name, value)
        return h, ChannelState(last)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """G H (I + 1), and N H of the matrix behind where there is one."""
        hidden = cls.states(config, width)
        return cls.blocks * hidden * (in_width + 1) + (0 if config.expansion == 1 else width * hidden)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2 G H I, and 2 N H of the matrix behind where there is one."""
        hidden = cls.states(config, width)
        return 2 * cls.blocks * hidden * in_width + (0 if config.expansion == 1 else 2 * width * hidden)


class MinGRU(Minimal):
    r"""Minimal GRU (Feng et al. 2024, arXiv:2410.01201): a GRU whose gate and candidate are of the input alone.

    .. math::
        z_t &= \sigma(W_z x_t + b_z), \quad \tilde{h}_t = W_h x_t + b_h \quad (\text{log: } g(W_h x_t + b_h)) \\
        c_t &= (1 - z_t) \odot c_{t-1} + z_t \odot \tilde{h}_t, \quad h_t = c_t \quad (\text{or } W_o c_t)

    with g(x) = x + 1/2 where x is at least 0, else the logistic function. The forms plain and log are different
    models: a candidate of any sign, or a positive one. The published code computes log by a sum of logarithms, whose
    error grows with the length; here both go through the plain scan, which gives the same numbers without it, and
    start from zero, where the published code's log form starts from g(0) = 1/2. Biases as in the authors' code;
    another package has none. The traced z is 1 - z of the equations, the share that is kept, as in the other cells.
    Blocks of ``weight`` and ``bias`` in the order z, h.

    Parameters 2H(I + 1), with H = N; where H differs, N H more.
    """

    Config = MinGRUConfig
    EXAMPLES = (MinGRUConfig(), MinGRUConfig(form="log"), MinGRUConfig(expansion=1.5))
    EQUATION = "c = (1-z)*c + z*n, z and n of x alone"
    blocks = 2

    def kept(self, gates: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """1 - z has the logit of z with the other sign."""
        (z,) = gates
        return -z, {"z_pre": -z, "z": torch.sigmoid(-z)}
