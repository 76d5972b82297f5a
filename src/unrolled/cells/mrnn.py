"""Multiplicative recurrent network."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, HiddenState, StepCell, Tap, Weights
from unrolled.cells.init import Init, fill_matrix, fill_vectors

__all__ = ["MRNN", "MRNNConfig"]


class MRNNConfig(CellConfig):
    """Options of the multiplicative RNN."""

    name: Literal["mrnn"] = "mrnn"
    factor: int | None = Field(
        default=None, ge=1, description="size F of the intermediate state m (absent: the cell's width)"
    )
    init: Init = Field(default="uniform", description="initialisation of the matrices")


class MRNN(StepCell):
    r"""Multiplicative RNN (Sutskever, Martens and Hinton 2011): the recurrent matrix depends on the input.

    .. math::
        m_t &= (W_{mx} x_t) \odot (W_{mh} h_{t-1}) \\
        h_t &= \tanh(W_x x_t + W_m m_t + b)

    The paper writes the factored tensor W_m diag(W_mx x) W_mh; the two are the same. It was trained by Hessian-free
    optimisation, which is not needed here. Parameters FI + FN + NI + NF + N.
    """

    Config = MRNNConfig
    State = HiddenState
    EXAMPLES = (MRNNConfig(), MRNNConfig(factor=3, init="orthogonal"))
    EQUATION = "m = (Wmx x)*(Wmh h); h = tanh(Wx x + Wm m)"
    recurrent_weights = ("weight_mh", "weight_m")

    def __init__(self, in_width: int, width: int, config: MRNNConfig):
        super().__init__(in_width, width, config)
        factor = config.factor or width
        self.weight_x = nn.Parameter(torch.empty(width, in_width))
        self.weight_mx = nn.Parameter(torch.empty(factor, in_width))
        self.weight_mh = nn.Parameter(torch.empty(factor, width))
        self.weight_m = nn.Parameter(torch.empty(width, factor))
        self.bias = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew; the bias starts at zero."""
        init, width = self.config.init, self.width
        fill_matrix(self.weight_x, init, width, recurrent=False)
        fill_matrix(self.weight_mx, init, width, recurrent=False)
        fill_matrix(self.weight_mh, init, width)
        fill_matrix(self.weight_m, init, width)
        fill_vectors([self.bias])

    def project(self, x: Tensor, w: Weights) -> tuple[Tensor, Tensor]:
        """W_x x + b (..., N) and W_mx x (..., F)."""
        return w.linear("weight_x", x) + w["bias"], w.linear("weight_mx", x)

    def step(self, pre: tuple[Tensor, Tensor], state: HiddenState, w: Weights, tap: Tap) -> tuple[Tensor, HiddenState]:
        """One step of the class's equations."""
        m = pre[1] * w.linear("weight_mh", state.h)
        h = torch.tanh(w.linear("weight_m", m, pre[0]))
        tap("m", m)
        tap("h", h)
        return h, HiddenState(h)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """FI + FN + NI + NF + N."""
        factor = config.factor or width
        return factor * (in_width + width) + width * (in_width + factor + 1)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2(F + N)I + 4FN."""
        factor = config.factor or width
        return 2 * (factor + width) * in_width + 4 * factor * width
