"""What a model takes and gives besides tokens."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["ModelOutput", "ModelState"]


class ModelState(NamedTuple):
    """What a model carries from one call to the next. cells: one State a layer. head: the head's, or None."""

    cells: tuple[Any, ...]
    head: Any = None


class ModelOutput(NamedTuple):
    """raw, dropped: last outputs (batch, time, width) before and after dropout. state: carried on. handed: what cells
    handed upwards within the window, by name (see :attr:`unrolled.cells.Cell.hands`)."""

    raw: Tensor
    dropped: Tensor
    state: ModelState
    handed: Mapping[str, Tensor] = {}
