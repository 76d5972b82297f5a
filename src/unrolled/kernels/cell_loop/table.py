"""Inputs that are rows of a table: what depends on the input alone is then computed once for each row of the table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding

from unrolled.core.tree import map_tree

__all__ = ["TableInput", "dense", "project_window"]


@dataclass(frozen=True)
class TableInput:
    """The input of a window as rows of a table, which stands for ``table[ids]``.

    table: (rows, in_width), of any layout. ids: (batch, time), row numbers.
    """

    table: Tensor
    ids: Tensor

    @property
    def shape(self) -> torch.Size:
        """That of the input, (batch, time, in_width)."""
        return torch.Size((*self.ids.shape, self.table.shape[1]))

    @property
    def dtype(self) -> torch.dtype:
        return self.table.dtype

    @property
    def device(self) -> torch.device:
        return self.table.device


def dense(x: Tensor | TableInput) -> Tensor:
    """The input as one tensor, (batch, time, in_width)."""
    return embedding(x.ids, x.table) if isinstance(x, TableInput) else x


def project_window(project: Callable[[Tensor], Any], x: Tensor | TableInput) -> Any:
    """What depends on the input alone, of all steps at once, time-major.

    Args:
        project: (..., in_width) -> tree of tensors with the same leading dimensions, which do not mix.
        x: (batch, time, in_width).
    Returns:
        ``project``'s tree of (time, batch, ...).
    """
    if not isinstance(x, TableInput):
        return project(x.transpose(0, 1).contiguous())
    ids = x.ids.t()
    return map_tree(lambda part: embedding(ids, part.flatten(1)).unflatten(-1, part.shape[1:]), project(x.table))
