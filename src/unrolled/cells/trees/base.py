"""The contract of a tree cell: states of nodes from those of their children."""

from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, Weights
from unrolled.core.errors import UsageError
from unrolled.kernels.dispatch import Compute
from unrolled.kernels.tree_loop import OPERATION, tree_loop

__all__ = ["TreeCell", "TreeState", "gated"]


class TreeState(NamedTuple):
    """h, c: (nodes, width) of nodes, (nodes, children, width) where children are read."""

    h: Tensor
    c: Tensor


class TreeCell(nn.Module):
    """A recurrence over trees. A subclass writes :meth:`leaf`, :meth:`compose` and :meth:`num_params`.

    Args:
        in_width: width of the vectors of words. width: of the states. config: the cell's frozen Config.

    Attributes:
        Config: the config class. State: the NamedTuple of the state, of tensors (nodes, ...), with a field ``h``.
        EXAMPLES: configs that cover the options, the rows of the conformance suite.
        EQUATION: one line.
        arity: how many children every inner node has; None for any number.
        reads_inner: whether inner nodes have a vector too.
        compute: backend and precision; set by the model that holds the cell.
    """

    Config: ClassVar[type[CellConfig]]
    State: ClassVar[type] = TreeState
    EXAMPLES: ClassVar[tuple[CellConfig, ...]]
    EQUATION: ClassVar[str]
    arity: ClassVar[int | None] = None
    reads_inner: bool = False

    def __init__(self, in_width: int, width: int, config: Any):
        super().__init__()
        self.in_width, self.width, self.config = in_width, width, config
        self.compute = Compute()

    @property
    def name(self) -> str:
        return self.config.name

    def forward(self, x: Tensor, parents: np.ndarray) -> Any:
        """States (nodes, ...) of all nodes of a forest.

        Args:
            x: (nodes, in_width). What inner nodes have there is not read without ``reads_inner``.
            parents: int64 (nodes,), of each node the number of its parent, which is above its own, or -1.
        Raises:
            UsageError: nodes out of order, or another number of children than the cell takes.
        """
        self.check(parents)
        weights = Weights(dict(self.named_parameters()), self.compute.precision)
        return tree_loop(self, x, parents, weights, self.compute.wish(OPERATION.name), self.name)

    @classmethod
    def check(cls, parents: np.ndarray) -> None:
        """Raises UsageError where a node has another number of children than the cell takes."""
        if cls.arity is None:
            return
        counts = np.bincount(parents[parents >= 0]) if (parents >= 0).any() else np.zeros(1, np.int64)
        odd = counts[(counts != 0) & (counts != cls.arity)]
        if len(odd):
            raise UsageError(
                f"the {cls.EXAMPLES[0].name} joins {cls.arity} children at each inner node, and one has {odd[0]}; make "
                "the trees binary (task.binary=true, unrolled.data.trees.binarised)."
            )

    def leaf(self, x: Tensor, w: Weights) -> Any:
        """States of leaves, from their vectors x (nodes, in_width). Products go through ``w.linear``."""
        raise NotImplementedError

    def compose(self, children: Any, x: Tensor | None, w: Weights) -> Any:
        """States of inner nodes with equally many children.

        Args:
            children: a State of tensors (nodes, children, ...). x: (nodes, in_width), None without ``reads_inner``.
        """
        raise NotImplementedError

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """Number of parameters."""
        raise NotImplementedError


def gated(o: Tensor, c: Tensor) -> TreeState:
    """h = σ(o) tanh c."""
    return TreeState(torch.sigmoid(o) * torch.tanh(c), c)
