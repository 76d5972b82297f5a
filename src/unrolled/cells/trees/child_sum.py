"""The child-sum tree LSTM."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, Weights
from unrolled.cells.init import Init, fill_matrix, fill_vectors
from unrolled.cells.trees.base import TreeCell, TreeState, gated

__all__ = ["ChildSumTreeLSTM", "ChildSumTreeLSTMConfig"]


class ChildSumTreeLSTMConfig(CellConfig):
    """Options of the child-sum tree LSTM."""

    name: Literal["child_sum_tree_lstm"] = "child_sum_tree_lstm"
    forget_bias: float = Field(default=0.0, ge=-1e4, le=1e4, description="initial bias of the forget gates")
    init: Init = Field(default="uniform", description="initialisation of the matrices")


class ChildSumTreeLSTM(TreeCell):
    r"""Child-sum tree LSTM (Tai, Socher and Manning 2015, equations 2 to 8): any number of children in no order, and a
    word at every node, such as dependency trees have.

    .. math::
        i, u, o &= \sigma, \tanh, \sigma (W x + U \textstyle\sum_k h_k + b) \\
        f_k &= \sigma(W_f x + U_f h_k + b_f) \\
        c &= i \odot u + \textstyle\sum_k f_k \odot c_k, \quad h = o \odot \tanh c

    A leaf has no children: its sums are 0. With one child at every node this is the LSTM.

    Parameters 4(IN + N² + N). The blocks of ``weight_x`` and ``bias`` are i, f, u, o; of ``weight_h`` i, u, o.
    """

    Config = ChildSumTreeLSTMConfig
    EXAMPLES = (ChildSumTreeLSTMConfig(), ChildSumTreeLSTMConfig(forget_bias=1.0, init="orthogonal"))
    EQUATION = "c = sum of f_k*c_k + i*u, gates of x and the sum of h"
    reads_inner = True

    def __init__(self, in_width: int, width: int, config: ChildSumTreeLSTMConfig):
        super().__init__(in_width, width, config)
        self.weight_x = nn.Parameter(torch.empty(4 * width, in_width))
        self.weight_h = nn.Parameter(torch.empty(3 * width, width))
        self.weight_f = nn.Parameter(torch.empty(width, width))
        self.bias = nn.Parameter(torch.empty(4 * width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        init = self.config.init
        fill_matrix(self.weight_x, init, self.width, blocks=4, recurrent=False)
        fill_matrix(self.weight_h, init, self.width, blocks=3)
        fill_matrix(self.weight_f, init, self.width)
        fill_vectors([self.bias])
        with torch.no_grad():
            self.bias[self.width : 2 * self.width] = self.config.forget_bias

    def leaf(self, x: Tensor, w: Weights) -> TreeState:
        """See :class:`TreeCell`."""
        i, _, u, o = w.linear("weight_x", x, w["bias"]).chunk(4, -1)
        return gated(o, torch.sigmoid(i) * torch.tanh(u))

    def compose(self, children: TreeState, x: Tensor | None, w: Weights) -> TreeState:
        """See :class:`TreeCell`."""
        assert x is not None
        into_i, into_f, into_u, into_o = w.linear("weight_x", x, w["bias"]).chunk(4, -1)
        i, u, o = w.linear("weight_h", children.h.sum(1), torch.cat([into_i, into_u, into_o], -1)).chunk(3, -1)
        f = torch.sigmoid(w.linear("weight_f", children.h) + into_f.unsqueeze(1))
        return gated(o, torch.sigmoid(i) * torch.tanh(u) + (f * children.c).sum(1))

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """4(IN + N² + N)."""
        return 4 * width * (in_width + width + 1)
