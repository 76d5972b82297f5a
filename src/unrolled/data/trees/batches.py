"""Batches of trees."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data.labelled.batches import ByLength

__all__ = ["NumberedTree", "TreeBatch", "TreeBatches", "TreeSplit", "forest_of"]

_NONE = -1
_PADDING = -2


class NumberedTree(NamedTuple):
    """A tree in numbers, int64 (nodes,) each.

    words: -1 where a node has none. parents: -1 of the root. labels: -1 where a node has none. heights: of the nodes in
    the tree as it was given; -1 of nodes that binarising has added.
    """

    words: np.ndarray
    parents: np.ndarray
    labels: np.ndarray
    heights: np.ndarray


class TreeBatch(NamedTuple):
    """Trees side by side, int64 (rows, nodes) each, with -2 behind the nodes of a tree; see :class:`NumberedTree`."""

    words: Tensor
    parents: Tensor
    labels: Tensor


class TreeSplit:
    """Trees of one split.

    Args:
        trees: in numbers, one at least. name: of the split, for sentences.
    Raises:
        UsageError: no tree, or no label.
    """

    def __init__(self, trees: Sequence[NumberedTree], name: str = "this split"):
        self.trees, self.name = list(trees), name
        if not self.trees or not any((tree.labels >= 0).any() for tree in self.trees):
            raise UsageError(f"{name} has no tree with a label; give one at least.")

    def __len__(self) -> int:
        return len(self.trees)

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 (n,), nodes of each tree."""
        return np.array([len(tree.words) for tree in self.trees], np.int64)

    @cached_property
    def targets(self) -> int:
        """How many labels there are."""
        return sum(int((tree.labels >= 0).sum()) for tree in self.trees)

    @cached_property
    def checksum(self) -> str:
        """Of words, shapes and labels."""
        content = hashlib.sha256(self.lengths.tobytes())
        for tree in self.trees:
            for part in tree[:3]:
                content.update(np.ascontiguousarray(part, np.int64).tobytes())
        return content.hexdigest()

    def beginning(self, limit: int | None) -> "TreeSplit":
        """The first ``limit`` trees."""
        return self if limit is None or limit >= len(self) else TreeSplit(self.trees[:limit], self.name)


def forest_of(trees: Sequence[NumberedTree]) -> TreeBatch:
    """Trees side by side."""
    longest = max(len(tree.words) for tree in trees)
    found = np.full((3, len(trees), longest), _PADDING, np.int64)
    for row, tree in enumerate(trees):
        found[:, row, : len(tree.words)] = tree.words, tree.parents, tree.labels
    return TreeBatch(*torch.from_numpy(found).unbind())


def flat_parents(batch: TreeBatch) -> tuple[np.ndarray, np.ndarray]:
    """Boolean (rows, nodes), true at nodes; and the parents of all these, row after row, by their place among them."""
    parents = batch.parents.cpu().numpy()
    there = parents != _PADDING
    begin = np.cumsum(there.sum(1)) - there.sum(1)
    return there, np.where(parents < 0, -1, parents + begin[:, None])[there]


class TreeBatches(ByLength):
    """Training batches without end, of trees of similar size; see :class:`ByLength`.

    Args:
        split: the trees. count: of a batch. streams: source of the order.
    """

    def __init__(self, split: TreeSplit, count: int, streams: RandomStreams):
        super().__init__(split.lengths, count, streams)
        self._split = split

    @property
    def full_batch(self) -> int:
        """Labels of a batch, in the mean."""
        return max(1, round(self._count * self._split.targets / len(self._split)))

    def tokens_per_epoch(self) -> int:
        """Labels."""
        return self._split.targets

    def at(self, position: int) -> TreeBatch:
        """See :class:`unrolled.task.Source`."""
        return forest_of([self._split.trees[place] for place in self.chosen(position)[2].tolist()])
