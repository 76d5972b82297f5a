"""A model of trees with labels: vectors of words, a tree cell, a head of classes."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from unrolled.cells import TREES
from unrolled.kernels.dispatch import Compute
from unrolled.model.classes.head import ClassHead, ClassHeadConfig

__all__ = ["TreeModel"]


class TreeModel(nn.Module):
    """Classes of the nodes of trees.

    Args:
        vocabulary: number of words. in_width: of their vectors. width: of the states. cell: config of a tree cell.
        classes: how many there are. head: its config; it reads one node at a time. compute: backend and precision.
    """

    def __init__(
        self,
        vocabulary: int,
        in_width: int,
        width: int,
        cell: Any,
        classes: int,
        head: ClassHeadConfig,
        compute: Compute,
    ):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(vocabulary, in_width))
        if not self.embedding.is_meta:
            nn.init.normal_(self.embedding, 0, in_width**-0.5)
        self.cell = TREES[cell.name](in_width, width, cell)
        self.head = ClassHead(width, classes, head)
        self.cell.compute = self.head.compute = compute

    @property
    def device(self) -> torch.device:
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.dtype

    def forward(self, words: Tensor, parents: np.ndarray, mask: Tensor | None = None) -> Tensor:
        """h (nodes, width) of a forest.

        Args:
            words: (nodes,), -1 where a node has none, whose vector is 0. parents: int64 (nodes,), -1 of roots; see
                :meth:`TreeCell.forward`. mask: (nodes, in_width), multiplies the vectors.
        """
        x = embedding(words.clamp_min(0), self.embedding).masked_fill((words < 0).unsqueeze(-1), 0)
        return self.cell(x if mask is None else x * mask, parents).h

    def num_params(self) -> int:
        """Of embedding, cell and head."""
        return sum(p.numel() for p in self.parameters())
