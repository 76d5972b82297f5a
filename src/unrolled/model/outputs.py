"""What a model takes and gives besides tokens."""

from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["ModelOutput", "ModelState"]


class ModelState(NamedTuple):
    """What a model carries from one call to the next. cells: one State a layer. head: the head's, or None."""

    cells: tuple[Any, ...]
    head: Any = None


class ModelOutput(NamedTuple):
    """raw, dropped: last outputs (batch, time, width) before and after dropout. state: carried on. cost: what the cells
    ask for each token, (batch, time, 1), where some hand one up (``hands``, "cost"), else None."""

    raw: Tensor
    dropped: Tensor
    state: ModelState
    cost: Tensor | None = None
