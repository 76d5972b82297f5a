"""A tree: nodes with words and labels, children before their parents."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unrolled.core.errors import UsageError

__all__ = ["Tree", "balanced", "binarised"]


class Tree(NamedTuple):
    """One tree, as rows of its nodes: every node stands before its parent, children in their order, the root last.

    words: of each node, empty where it has none. parents: numbers of nodes, -1 of the root. labels: of each node, empty
    where it has none.
    """

    words: tuple[str, ...]
    parents: tuple[int, ...]
    labels: tuple[str, ...]

    def heights(self) -> np.ndarray:
        """int64 (nodes,): 0 of a leaf, else one more than that of the highest child."""
        found = [0] * len(self.parents)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                found[parent] = max(found[parent], found[node] + 1)
        return np.array(found, np.int64)

    def children(self) -> list[list[int]]:
        """Those of each node, in their order."""
        found: list[list[int]] = [[] for _ in self.parents]
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                found[parent].append(node)
        return found

    def rooted(self) -> "Tree":
        """The tree with the label of its root alone."""
        return self._replace(labels=("",) * (len(self.labels) - 1) + self.labels[-1:])


class _Growing:
    """A tree that is written node by node."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.parents: list[int] = []
        self.labels: list[str] = []
        self.below: list[list[int]] = []

    def add(self, word: str = "", label: str = "", children: Sequence[int] = ()) -> int:
        """The number of a new node."""
        number = len(self.words)
        for child in children:
            self.parents[child] = number
        self.words.append(word)
        self.parents.append(-1)
        self.labels.append(label)
        self.below.append(list(children))
        return number

    def done(self) -> Tree:
        return Tree(tuple(self.words), tuple(self.parents), tuple(self.labels))


def binarised(tree: Tree) -> tuple[Tree, np.ndarray]:
    """The tree with two children at each inner node, and words at leaves alone: branching to the left.

    A node with children a, b, c becomes ((a b) c); its own word, if it has one, becomes a leaf before them,
    (((word a) b) c). A node with one child and no word is that child. Labels stay at the node that covers all of it; of
    nodes that become one, the label of the highest that has one.

    Returns:
        The tree, and int64 (nodes,): what each node of the given tree has become.
    """
    made, places = _Growing(), np.zeros(len(tree.words), np.int64)
    for node, below in enumerate(tree.children()):
        parts = [int(places[child]) for child in below]
        if tree.words[node] or not below:
            parts.insert(0, made.add(tree.words[node]))
        while len(parts) > 1:
            parts[:2] = [made.add(children=parts[:2])]
        places[node] = parts[0]
        made.labels[parts[0]] = tree.labels[node] or made.labels[parts[0]]
    return _in_order(made, places)


def _in_order(made: _Growing, places: np.ndarray) -> tuple[Tree, np.ndarray]:
    """The tree with its nodes in order, where some were made after what stands behind them."""
    tree, stack, order = made.done(), [int(places[-1])], []
    while stack:  # the last child first, turned round below
        node = stack.pop()
        order.append(node)
        stack += made.below[node]
    order.reverse()
    number = {node: place for place, node in enumerate(order)}
    parents = tuple(number[tree.parents[node]] if tree.parents[node] >= 0 else -1 for node in order)
    words, labels = (tuple(part[node] for node in order) for part in (tree.words, tree.labels))
    return Tree(words, parents, labels), np.array([number[int(place)] for place in places], np.int64)


def balanced(words: Sequence[str], label: str = "") -> Tree:
    """A binary tree over words whose halves differ by one word at most, the left one the longer.

    Raises:
        UsageError: no words.
    """
    if not words:
        raise UsageError("a tree has a word at least; leave empty texts out.")
    made = _Growing()

    def grown(low: int, high: int) -> int:  # as deep as the logarithm
        if high - low == 1:
            return made.add(words[low])
        middle = (low + high + 1) // 2
        return made.add(children=(grown(low, middle), grown(middle, high)))

    made.labels[grown(0, len(words))] = label
    return made.done()
