"""``tree_loop``: a recurrence from the leaves of trees to their roots.

.. code-block:: none

    state(leaf) = leaf(x(leaf))
    state(node) = compose(states of its children in their order, x(node))

A forest is one row of numbers: the parent of each node, -1 for a root; every node stands before its parent. Backends:
``levels`` (all leaves of the forest at once, then all nodes of one height and number of children at once) and
``reference`` (one node after another, which defines it).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from unrolled.kernels.cell_loop.weights import Weights
from unrolled.kernels.dispatch import Backend, Operation, Sizes, choose
from unrolled.kernels.tree_loop.plan import Group, checked, plan_of

__all__ = ["BACKENDS", "OPERATION", "Composer", "Group", "plan_of", "tree_loop"]


class Composer(Protocol):
    """What is run over a tree. States are NamedTuples of tensors (nodes, ...). reads_inner: whether nodes with children
    have an input too."""

    reads_inner: bool

    def leaf(self, x: Tensor, w: Weights) -> Any:
        """States of leaves, from their inputs (nodes, in_width)."""
        ...

    def compose(self, children: Any, x: Tensor | None, w: Weights) -> Any:
        """States of nodes with equally many children.

        Args:
            children: a state of tensors (nodes, children, ...). x: (nodes, in_width); None without ``reads_inner``.
        """
        ...


def _reference(cell: Composer, x: Tensor, parents: np.ndarray, w: Weights) -> Any:
    """The recursion, one node after another: since children stand before their parent, their states are there."""
    below: list[list[Any]] = [[] for _ in parents]
    states = []
    for node, parent in enumerate(checked(parents).tolist()):
        row = x[node : node + 1]
        if below[node]:
            first = below[node][0]
            children = type(first)(*(torch.stack(parts, 1) for parts in zip(*below[node], strict=True)))
            state = cell.compose(children, row if cell.reads_inner else None, w)
        else:
            state = cell.leaf(row, w)
        states.append(state)
        if parent >= 0:
            below[parent].append(state)
    return type(states[0])(*(torch.cat(parts) for parts in zip(*states, strict=True)))


def _levels(cell: Composer, x: Tensor, parents: np.ndarray, w: Weights) -> Any:
    found: Any = None
    for nodes, children in plan_of(parents):
        places = torch.from_numpy(nodes).to(x.device)
        if found is None:
            state = cell.leaf(x.index_select(0, places), w)
            found = type(state)(*(part.new_zeros(len(parents), *part.shape[1:]) for part in state))
        else:
            chosen = torch.from_numpy(children.reshape(-1)).to(x.device)
            read = (part.index_select(0, chosen).unflatten(0, children.shape) for part in found)
            state = cell.compose(type(found)(*read), x.index_select(0, places) if cell.reads_inner else None, w)
        # not in place: what was read before is needed as it was for the gradient
        found = type(found)(*(whole.index_copy(0, places, part) for whole, part in zip(found, state, strict=True)))
    return found


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("levels", lambda *_: None, _levels),
        Backend("reference", lambda *_: None, _reference),
    )
}


def tree_loop(
    cell: Composer, x: Tensor, parents: np.ndarray, w: Weights, backend: str = "auto", subject: str = "a tree cell"
) -> Any:
    """States of all nodes of a forest.

    Args:
        cell: what makes a state. x: (nodes, in_width). parents: int64 (nodes,), of each node the number of its parent,
            which is above its own, or -1.
        w: the cell's weights.
    Returns:
        The cell's state of tensors (nodes, ...).
    Raises:
        UsageError: nodes out of order; an unknown backend.
    """
    return choose("tree_loop", BACKENDS, backend, subject, cell, x, parents, w).run(cell, x, parents, w)


class _State(NamedTuple):
    h: Tensor


class _Sums:
    """h = tanh(W x + U sum of the children's h): what the operation is measured by."""

    reads_inner = True

    def leaf(self, x: Tensor, w: Weights) -> _State:
        return _State(torch.tanh(w.linear("weight_x", x)))

    def compose(self, children: _State, x: Tensor | None, w: Weights) -> _State:
        assert x is not None
        return _State(torch.tanh(w.linear("weight_h", children.h.sum(1), w.linear("weight_x", x))))


def _forest(batch: int, nodes: int) -> np.ndarray:
    """Trees whose node n > 0, counted from the root, hangs on node (n - 1) // 3."""
    above = (np.arange(nodes) - 1) // 3
    tree = nodes - 1 - above[::-1]  # turned round, so that a parent follows its children
    tree[-1] = -1
    return np.concatenate([np.where(tree < 0, -1, tree + row * nodes) for row in range(batch)])


def _amount(sizes: Sizes, backward: bool) -> int:
    """Two operations a weight: the input's product at every node, the children's at every node that has some."""
    parents = _forest(1, sizes.window + 1)
    inner = len(np.unique(parents[parents >= 0]))
    return (3 if backward else 1) * 2 * sizes.width**2 * sizes.batch * (sizes.window + 1 + inner)


def _inputs(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    width = sizes.width
    return {  # a step is a node below the root
        "x": draw("x", sizes.batch, sizes.window + 1, width),
        "weight_x": draw("weight_x", width, width) * width**-0.5,
        "weight_h": draw("weight_h", width, width) * width**-0.5,
    }


def _call(given: Mapping[str, Tensor], backend: str, precision: str) -> tuple[Tensor, ...]:
    x = given["x"]
    weights = Weights({name: given[name] for name in ("weight_x", "weight_h")}, precision)
    state = tree_loop(_Sums(), x.flatten(0, 1), _forest(*x.shape[:2]), weights, backend, "sums")
    return (state.h.unflatten(0, x.shape[:2]),)


OPERATION = Operation(
    "tree_loop", "s(node) = compose(s(its children), x(node)), any TreeCell", BACKENDS, "products", True, _amount,
    _inputs, _call, precisions=("float32", "bf16"),
)  # fmt: skip
