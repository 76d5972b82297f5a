"""Long term memory network."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, StepCell, Tap, Weights
from unrolled.cells.init import Init, fill_matrix, fill_vectors
from unrolled.cells.taps import tap_blocks

__all__ = ["LTM", "LTMConfig", "LTMState"]


class LTMConfig(CellConfig):
    """Options of the long term memory network."""

    name: Literal["ltm"] = "ltm"
    join: Literal["sum", "concat"] = Field(
        default="sum", description="gates see x + h, by one matrix each, or x and h side by side, with two"
    )
    scale: float = Field(
        default=4.0, gt=0, le=1e4, description="times the initial W_4; with a norm of less than 4 it cannot remember"
    )
    init: Init = Field(default="uniform", description="initialisation of the matrices; uniform draws the biases too")


class LTMState(NamedTuple):
    """h, c: (batch, width)."""

    h: Tensor
    c: Tensor


class LTM(StepCell):
    r"""Long term memory network (Nugaliyadde 2023; Nugaliyadde, Wong, Sohel, Xie 2019): an LSTM without a forget gate.

    .. math::
        a &= x_t + h_{t-1}, \quad L_1 = \sigma(W_1 a + b_1), \quad L_2 = \sigma(W_2 a + b_2), \quad
            L_3 = \sigma(W_3 a + b_3) \\
        c_t &= \sigma(W_4 (L_1 \odot L_2 + c_{t-1}) + b_4), \quad h_t = c_t \odot L_3

    A reconstruction: the texts were not at hand, and there is no public code. In place of a forget gate the outer σ
    keeps c between 0 and 1. That bounds the state, and makes the memory short: ∂c_t/∂c_{t-1} = diag(c(1 - c)) W_4 is
    at most ‖W_4‖/4. ``unrolled inspect memory`` measures it.

    ``join = "concat"``: W [x; h] in place of W (x + h). Of I inputs and N ≠ I outputs a sum needs a linear map to the
    width first, which is there then. Taps: i is L_1, g is L_2, o is L_3. All weights start as those of a linear layer
    of N inputs, ±1/sqrt(N), but W_4, which starts ``scale`` times as large (ours: drawn so, its norm is 4.6; unscaled,
    1.15, the gradient is lost within two tokens). Parameters 4N² + 4N; NI more where the widths differ, 3NI more with
    ``concat``.
    """

    Config = LTMConfig
    State = LTMState
    EXAMPLES = (LTMConfig(), LTMConfig(join="concat", scale=1.0, init="orthogonal"))
    EQUATION = "c = s(W4 (i*g + c)); h = c*o"
    recurrent_weights = ("weight_cc",)

    def __init__(self, in_width: int, width: int, config: LTMConfig):
        super().__init__(in_width, width, config)
        if config.join == "concat":
            self.recurrent_weights = ("weight_hh", "weight_cc")
            self.weight_ih = nn.Parameter(torch.empty(3 * width, in_width))
        elif in_width != width:
            self.widen = nn.Parameter(torch.empty(width, in_width))
        # with a sum it multiplies x too
        self.weight_hh = nn.Parameter(torch.empty(3 * width, width))
        self.weight_cc = nn.Parameter(torch.empty(width, width))
        self.bias = nn.Parameter(torch.empty(3 * width))
        self.bias_c = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew; biases uniform as the matrices, or zero."""
        init, width = self.config.init, self.width
        for name, blocks in (("weight_ih", 3), ("weight_hh", 3), ("weight_cc", 1), ("widen", 1)):
            if hasattr(self, name):
                fill_matrix(self.get_parameter(name), init, width, blocks, recurrent=name in ("weight_hh", "weight_cc"))
        with torch.no_grad():
            self.weight_cc.mul_(self.config.scale)
        for bias in (self.bias, self.bias_c):
            if init == "uniform":
                nn.init.uniform_(bias, -(width**-0.5), width**-0.5)
            else:
                fill_vectors([bias])

    def project(self, x: Tensor, w: Weights) -> Tensor:
        """W x + b of the three gates, (..., 3N)."""
        if self.config.join == "concat":
            return w.linear("weight_ih", x, w["bias"])
        return w.linear("weight_hh", w.linear("widen", x) if "widen" in w else x, w["bias"])

    def step(self, pre: Tensor, state: LTMState, w: Weights, tap: Tap) -> tuple[Tensor, LTMState]:
        """One step of the class's equations."""
        into_gates = w.linear("weight_hh", state.h, pre)
        i, g, o = torch.sigmoid(into_gates).chunk(3, -1)
        c = torch.sigmoid(w.linear("weight_cc", i * g + state.c) + w["bias_c"])
        h = c * o
        tap_blocks(tap, ("i_pre", "g_pre", "o_pre"), into_gates)
        for name, value in (("i", i), ("g", g), ("o", o), ("c", c), ("h", h)):
            tap(name, value)
        return h, LTMState(h, c)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """4N² + 4N, + 3NI with concat, + NI with a sum of other widths."""
        return 4 * width * (width + 1) + cls._from_x(config, in_width, width)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """8N², + 6NI with concat; with a sum + 6N², and 2NI where the widths differ."""
        again = 0 if config.join == "concat" else 6 * width * width
        return 8 * width * width + again + 2 * cls._from_x(config, in_width, width)

    @staticmethod
    def _from_x(config: Any, in_width: int, width: int) -> int:
        """Size of the matrices that multiply x alone."""
        if config.join == "concat":
            return 3 * width * in_width
        return 0 if in_width == width else width * in_width
