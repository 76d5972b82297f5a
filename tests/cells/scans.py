"""Scan cells with weights that are not special, for the tests of this folder."""

from typing import Any

import torch
from torch import Tensor

from unrolled.cells import CELLS

__all__ = ["cell", "draw"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cell(name: str, in_width: int = 6, width: int = 4, scale: float = 0.5, **options: Any) -> Any:
    """A cell of float64 whose every parameter is drawn, deviation ``scale``."""
    made = CELLS[name](in_width, width, CELLS.parse({"name": name, **options})).double()
    with torch.no_grad():
        for k, parameter in enumerate(made.parameters()):
            parameter.copy_(scale * draw(*parameter.shape, seed=k))
    return made
