"""The S-LSTM: an LSTM whose step joins two subtrees."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, Weights
from unrolled.cells.init import Init, fill_matrix, fill_vectors
from unrolled.cells.trees.base import TreeCell, TreeState, gated

__all__ = ["SLSTM", "SLSTMConfig"]


class SLSTMConfig(CellConfig):
    """Options of the S-LSTM."""

    name: Literal["s_lstm"] = "s_lstm"
    forget_bias: float = Field(default=0.0, ge=-1e4, le=1e4, description="initial bias of both forget gates")
    init: Init = Field(default="uniform", description="initialisation of the matrices")


class SLSTM(TreeCell):
    r"""S-LSTM (Zhu, Sobhani and Guo 2015): left and right subtree are joined by gates that see both states.

    .. math::
        i, f_L, f_R &= \sigma(U [h_L; h_R] + V [c_L; c_R] + b), \quad u = \tanh(U_u [h_L; h_R] + b_u) \\
        c &= f_L \odot c_L + f_R \odot c_R + i \odot u \\
        o &= \sigma(U_o [h_L; h_R] + V_o c + b_o), \quad h = o \odot \tanh c

    A leaf's h is its vector, through a matrix and a bias where the widths differ, and its c is 0. A reconstruction from
    the text of the paper: peepholes are full matrices, and there is a bias at each gate. Words stand at leaves alone.

    Parameters 5(2N² + N) + 3 · 2N² + N², and IN + N where the widths differ. The blocks of ``weight_h`` and ``bias``
    are i, f_L, f_R, u, o.
    """

    Config = SLSTMConfig
    EXAMPLES = (SLSTMConfig(), SLSTMConfig(forget_bias=1.0, init="orthogonal"))
    EQUATION = "c = f_L*c_L + f_R*c_R + i*u, gates of both h and both c"
    arity = 2

    def __init__(self, in_width: int, width: int, config: SLSTMConfig):
        super().__init__(in_width, width, config)
        self.weight_in = nn.Parameter(torch.empty(width, in_width)) if in_width != width else None
        self.bias_in = nn.Parameter(torch.empty(width)) if in_width != width else None
        self.weight_h = nn.Parameter(torch.empty(5 * width, 2 * width))
        self.weight_c = nn.Parameter(torch.empty(3 * width, 2 * width))
        self.weight_o = nn.Parameter(torch.empty(width, width))
        self.bias = nn.Parameter(torch.empty(5 * width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        init = self.config.init
        if self.weight_in is not None and self.bias_in is not None:
            fill_matrix(self.weight_in, init, self.width, recurrent=False)
            fill_vectors([self.bias_in])
        fill_matrix(self.weight_h, init, self.width, blocks=5)
        fill_matrix(self.weight_c, init, self.width, blocks=3)
        fill_matrix(self.weight_o, init, self.width)
        fill_vectors([self.bias])
        with torch.no_grad():
            self.bias[self.width : 3 * self.width] = self.config.forget_bias

    def leaf(self, x: Tensor, w: Weights) -> TreeState:
        """See :class:`TreeCell`."""
        h = w.linear("weight_in", x, w["bias_in"]) if self.weight_in is not None else x
        return TreeState(h, torch.zeros_like(h))

    def compose(self, children: TreeState, x: Tensor | None, w: Weights) -> TreeState:
        """See :class:`TreeCell`."""
        left, right = children.c.unbind(1)
        gates = w.linear("weight_h", children.h.flatten(1), w["bias"])
        peeps = w.linear("weight_c", children.c.flatten(1))
        n = self.width
        i, f_left, f_right = torch.sigmoid(gates[:, : 3 * n] + peeps).chunk(3, -1)
        c = f_left * left + f_right * right + i * torch.tanh(gates[:, 3 * n : 4 * n])
        return gated(w.linear("weight_o", c, gates[:, 4 * n :]), c)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """5(2N² + N) + 7N², and IN + N where the widths differ."""
        return 17 * width**2 + 5 * width + (in_width * width + width if in_width != width else 0)
