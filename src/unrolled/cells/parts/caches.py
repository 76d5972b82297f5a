"""Several caches in one tensor of a state."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Caches"]


class Caches:
    """Where the last inputs of several convolutions lie side by side in one tensor (batch, numbers).

    Args:
        shapes: of each cache, (steps, width); either may be 0.
    """

    def __init__(self, shapes: Iterable[tuple[int, int]]):
        self.shapes = tuple(shapes)
        self.sizes = [steps * width for steps, width in self.shapes]

    def initial(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Tensor:
        """Zeros."""
        return torch.zeros(batch, sum(self.sizes), device=device, dtype=dtype)

    def split(self, held: Tensor) -> list[Tensor]:
        """(batch, numbers) as a list of (batch, steps, width)."""
        parts = held.split(self.sizes, 1)
        return [part.view(held.shape[0], *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    @staticmethod
    def join(parts: Sequence[Tensor]) -> Tensor:
        """The reverse of :meth:`split`."""
        return torch.cat([part.flatten(1) for part in parts], 1)
