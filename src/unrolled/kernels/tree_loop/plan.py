"""The order of work over a forest: which nodes can be made together."""

from typing import NamedTuple

import numpy as np

from unrolled.core.errors import UsageError

__all__ = ["Group", "checked", "plan_of"]


class Group(NamedTuple):
    """Nodes of one height with equally many children. nodes: (n,). children: (n, arity), in the order of their numbers;
    arity 0 for leaves."""

    nodes: np.ndarray
    children: np.ndarray


def checked(parents: np.ndarray) -> np.ndarray:
    """The parents, int64 (nodes,). Raises UsageError unless every node stands before its parent or has none (-1)."""
    parents = np.asarray(parents, np.int64)
    numbers = np.arange(len(parents))
    if not len(parents):
        raise UsageError("a forest has a node at least; leave empty ones out.")
    if not bool(((parents == -1) | ((parents > numbers) & (parents < len(parents)))).all()):
        raise UsageError("a node of a tree stands before its parent, and the root's parent is -1; put them in order.")
    return parents


def plan_of(parents: np.ndarray) -> list[Group]:
    """Groups in the order in which they can be made: leaves first, then height after height."""
    parents = checked(parents)
    count = len(parents)
    inner = np.flatnonzero(parents >= 0)
    levels = [0] * count
    for node, parent in enumerate(parents.tolist()):  # children come first
        if parent >= 0:
            levels[parent] = max(levels[parent], levels[node] + 1)
    height = np.array(levels)
    arity = np.bincount(parents[inner], minlength=count)
    ordered = inner[np.argsort(parents[inner], kind="stable")]  # children, those of one parent together
    begin = np.cumsum(arity) - arity
    found = []
    keys = np.stack([height, arity], 1)
    for level, children in np.unique(keys, axis=0).tolist():
        nodes = np.flatnonzero((height == level) & (arity == children))
        found.append(Group(nodes, ordered[begin[nodes][:, None] + np.arange(children)]))
    return found
