"""The binary tree LSTM."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, Weights
from unrolled.cells.init import Init, fill_matrix, fill_vectors
from unrolled.cells.trees.base import TreeCell, TreeState, gated

__all__ = ["BinaryTreeLSTM", "BinaryTreeLSTMConfig"]


class BinaryTreeLSTMConfig(CellConfig):
    """Options of the binary tree LSTM."""

    name: Literal["binary_tree_lstm"] = "binary_tree_lstm"
    forget_bias: float = Field(default=0.0, ge=-1e4, le=1e4, description="initial bias of both forget gates")
    init: Init = Field(default="uniform", description="initialisation of the matrices")


class BinaryTreeLSTM(TreeCell):
    r"""N-ary tree LSTM with two children (Tai, Socher and Manning 2015, equations 9 to 14), for trees whose words stand
    at the leaves.

    .. math::
        i, f_L, f_R, o &= \sigma(U [h_L; h_R] + b), \quad u = \tanh(U_u [h_L; h_R] + b_u) \\
        c &= f_L \odot c_L + f_R \odot c_R + i \odot u, \quad h = o \odot \tanh c \\
        \text{leaf:} \quad c &= W x + b, \quad h = \sigma(W_o x + b_o) \odot \tanh c

    Each forget gate has a bias of its own, where the equations share one; a leaf's c is not squashed, and it has no
    input gate, as in the authors' experiments.

    Parameters 2(IN + N) + 5(2N² + N). The blocks of ``weight_in`` and ``bias_in`` are c, o, those of ``weight_h`` and
    ``bias`` i, f_L, f_R, u, o.
    """

    Config = BinaryTreeLSTMConfig
    EXAMPLES = (BinaryTreeLSTMConfig(), BinaryTreeLSTMConfig(forget_bias=1.0, init="orthogonal"))
    EQUATION = "c = f_L*c_L + f_R*c_R + i*u, gates of both h"
    arity = 2

    def __init__(self, in_width: int, width: int, config: BinaryTreeLSTMConfig):
        super().__init__(in_width, width, config)
        self.weight_in = nn.Parameter(torch.empty(2 * width, in_width))
        self.bias_in = nn.Parameter(torch.empty(2 * width))
        self.weight_h = nn.Parameter(torch.empty(5 * width, 2 * width))
        self.bias = nn.Parameter(torch.empty(5 * width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        fill_matrix(self.weight_in, self.config.init, self.width, blocks=2, recurrent=False)
        fill_matrix(self.weight_h, self.config.init, self.width, blocks=5)
        fill_vectors([self.bias_in, self.bias])
        with torch.no_grad():
            self.bias[self.width : 3 * self.width] = self.config.forget_bias

    def leaf(self, x: Tensor, w: Weights) -> TreeState:
        """See :class:`TreeCell`."""
        c, o = w.linear("weight_in", x, w["bias_in"]).chunk(2, -1)
        return gated(o, c)

    def compose(self, children: TreeState, x: Tensor | None, w: Weights) -> TreeState:
        """See :class:`TreeCell`."""
        left, right = children.c.unbind(1)
        i, f_left, f_right, u, o = w.linear("weight_h", children.h.flatten(1), w["bias"]).chunk(5, -1)
        kept = torch.sigmoid(f_left) * left + torch.sigmoid(f_right) * right
        return gated(o, kept + torch.sigmoid(i) * torch.tanh(u))

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """2(IN + N) + 5(2N² + N)."""
        return 2 * width * (in_width + 1) + 5 * width * (2 * width + 1)
