"""Simple recurrent unit."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, HiddenState, ParameterRule, StepCell, Tap, Weights
from unrolled.cells.mixer import Given, MixerCell
from unrolled.cells.parts.shift import shifted
from unrolled.cells.parts.state import ChannelState
from unrolled.kernels.diag_scan import diag_scan

__all__ = ["SRU", "SRUConfig"]


class SRUConfig(CellConfig):
    """Options of the simple recurrent unit."""

    name: Literal["sru"] = "sru"
    version: Literal[1, 2] = Field(
        default=2, description="2: the gates see the last state; 1: they see the input alone"
    )
    highway_bias: float = Field(
        default=0.0, ge=-40, le=40, description="initial bias of the highway gate (deep language models: -3)"
    )


class _StateConfig(CellConfig):
    name: Literal["sru_state"] = "sru_state"


class _State(StepCell):
    """c(t) of version 2, from [u0, u1] with the bias in u1: nothing but the forget gate needs c(t-1)."""

    def __init__(self, width: int):
        super().__init__(2 * width, width, _StateConfig())
        self.weight = nn.Parameter(torch.empty(width))

    Config, State = _StateConfig, HiddenState

    def project(self, x: Tensor, w: Weights) -> Tensor:
        """Done by the cell around."""
        return x

    def step(self, pre: Tensor, state: HiddenState, w: Weights, tap: Tap) -> tuple[Tensor, HiddenState]:
        """f = sigma(u1 + w c), c = f c + (1 - f) u0."""
        u, into = pre.chunk(2, -1)
        f = torch.sigmoid(into + w["weight"] * state.h)
        c = f * state.h + (1 - f) * u
        return c, HiddenState(c)


class SRU(MixerCell):
    r"""Simple recurrent unit (Lei et al. 2018, arXiv:1709.02755).

    .. math::
        [u_0, u_1, u_2] &= W x_t \\
        f_t &= \sigma(u_1 + w_f \odot c_{t-1} + b_f), \quad r_t = \sigma(u_2 + w_r \odot c_{t-1} + b_r) \\
        c_t &= f_t \odot c_{t-1} + (1 - f_t) \odot u_0, \quad h_t = r_t \odot c_t + (1 - r_t) \odot \alpha x'_t

    Version 1, that of the paper's first texts, has no w_f and w_r and is a plain scan; in version 2 the gates see the
    last state, channel by channel, which takes a loop over time. x' is x with the fixed α = √(1 + 2e^b), b the highway
    gate's initial bias, where the widths agree; else a fourth block u_3, whose rows start scaled by α, as in the
    published code. Weights start uniform within √(3/I), in version 2 those of the gates scaled by √½; w within √(3/2),
    biases 0 but for that of the highway gate. The published code's low-rank W, its activation of c and its
    normalisations are left out: a residual stack has norms. Its dropout on c, one mask a sequence, is the layers'
    dropout here. Blocks of ``weight`` in the order u; of ``bias`` f, r.

    Parameters (3 or 4) I N + 2N, in version 2 2N more.
    """

    Config = SRUConfig
    State = ChannelState
    EXAMPLES = (SRUConfig(), SRUConfig(version=1), SRUConfig(version=2, highway_bias=-2.0))
    EQUATION = "c = f*c + (1-f)*u; h = r*c + (1-r)*x"
    recurrent_weights = ("weight",)

    def __init__(self, in_width: int, width: int, config: SRUConfig):
        super().__init__(in_width, width, config)
        self.weight = nn.Parameter(torch.empty(self._blocks(in_width, width) * width, in_width))
        self.bias = nn.Parameter(torch.empty(2 * width))
        second = config.version == 2
        self.state = _State(width) if second else None
        self.weight_r = nn.Parameter(torch.empty(width)) if second else None
        self.reset_parameters()

    @property
    def operation(self) -> str:  # type: ignore[override]
        """A scan, or in version 2 a loop."""
        return "diag_scan" if self.state is None else "cell_loop"

    @property
    def parameter_rules(self) -> Mapping[str, ParameterRule]:  # type: ignore[override]
        """The matrix starts by a rule of its own."""
        return {"weight": ParameterRule(drawn=False)}

    def backends(self) -> list[str]:
        """Of the scan, or in version 2 of the loop."""
        return super().backends() if self.state is None else self.state.backends()

    @staticmethod
    def _blocks(in_width: int, width: int) -> int:
        return 3 if in_width == width else 4

    @property
    def _alpha(self) -> float:
        return math.sqrt(1 + 2 * math.exp(self.config.highway_bias))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        bound, width = math.sqrt(3 / self.in_width), self.width
        nn.init.uniform_(self.weight, -bound, bound)
        if self.state is not None:
            self.weight[width : 3 * width] *= math.sqrt(0.5)
        self.weight[3 * width :] *= self._alpha
        self.bias.zero_()
        self.bias[width:] = self.config.highway_bias
        for vector in (self.weight_r, None if self.state is None else self.state.weight):
            if vector is not None:
                nn.init.uniform_(vector, -math.sqrt(1.5), math.sqrt(1.5))

    def mix(self, x: Tensor, state: ChannelState, given: Given) -> tuple[Tensor, ChannelState]:
        """One window of the class's equations."""
        u, f, r, *highway = self.linear("weight", x).chunk(self._blocks(self.in_width, self.width), -1)
        into_f, into_r = (part + bias for part, bias in zip((f, r), self.bias.chunk(2), strict=True))
        if self.state is None:
            f = torch.sigmoid(into_f)
            c, last = diag_scan(f, (1 - f) * u, state.c, given.reset, backend=self.wish, subject=self.name)
        else:
            self.state.compute = self.compute
            c, (last,) = self.state(torch.cat([u, into_f], -1), HiddenState(state.c), given.reset)
            before = shifted(c, state.c, given.reset)
            into_f = into_f + self.state.weight * before
            into_r = into_r + self.weight_r * before  # type: ignore[operator]
        r = torch.sigmoid(into_r)
        skip = highway[0] if highway else self._alpha * x
        h = r * c + (1 - r) * skip
        if given.show is not None:
            seen = {"f_pre": into_f, "o_pre": into_r, "g": u, "f": torch.sigmoid(into_f), "o": r, "c": c}
            for name, value in seen.items():
                given.show(name, value)
        return h, ChannelState(last)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """(3 or 4) I N + 2N, in version 2 2N more."""
        return cls._blocks(in_width, width) * in_width * width + 2 * width * config.version

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2 (3 or 4) I N."""
        return 2 * cls._blocks(in_width, width) * in_width * width
