"""Tree cells that are broken on purpose; each must fail the check that it is for."""

from typing import Any

import torch

from conformance.trees import checks
from unrolled.cells.trees.base import TreeState
from unrolled.cells.trees.child_sum import ChildSumTreeLSTM

__all__ = ["BROKEN"]


class Normed(ChildSumTreeLSTM):
    """Takes the mean of all nodes that are made together."""

    def compose(self, children: Any, x: Any, w: Any) -> Any:
        state = super().compose(children, x, w)
        return TreeState(state.h - state.h.mean(0), state.c)


class Wasted(ChildSumTreeLSTM):
    """Reads the first child alone."""

    def compose(self, children: Any, x: Any, w: Any) -> Any:
        return super().compose(TreeState(children.h[:, :1], children.c[:, :1]), x, w)


class Cut(ChildSumTreeLSTM):
    """Cuts a gradient."""

    def compose(self, children: Any, x: Any, w: Any) -> Any:
        return super().compose(TreeState(children.h.detach(), children.c), x, w)


class Exact(ChildSumTreeLSTM):
    """Never rounds."""

    def leaf(self, x: Any, w: Any) -> Any:
        return super().leaf(x, type(w)(w.named))

    def compose(self, children: Any, x: Any, w: Any) -> Any:
        return super().compose(children, x, type(w)(w.named))


class Counted(ChildSumTreeLSTM):
    """Has a parameter that the formula does not know."""

    def __init__(self, in_width: int, width: int, config: Any):
        super().__init__(in_width, width, config)
        self.extra = torch.nn.Parameter(torch.zeros(1))


BROKEN = (
    (Normed, checks.backends_agree),
    (Normed, checks.trees_are_independent),
    (Wasted, checks.nodes_see_what_is_below),
    (Cut, checks.gradients),
    (Exact, checks.bf16_is_near_and_other),
    (Counted, checks.num_params),
)
