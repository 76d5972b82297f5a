"""The largest model under a parameter budget, for any cell."""

import math
from collections.abc import Callable
from typing import Any

from unrolled.cells import CELLS
from unrolled.core.errors import UsageError
from unrolled.model.config import ModelConfig

__all__ = ["widest"]

_WIDEST = 1 << 24


def widest(
    config: ModelConfig, most: int, count: Callable[[ModelConfig], int], what: str = "parameters"
) -> ModelConfig:
    """``config`` with the largest ``width`` that its cells accept and whose model has at most ``most`` parameters, or
    whatever is counted; it asks for no number of parameters any more.

    Where the config fixes the ``widths`` of its layers, these and the embedding size are scaled together, in
    proportion to the first.

    Args:
        count: the number of parameters of a config. what: is counted, for messages.
    Raises:
        UsageError: even the smallest width is too large.
    """
    config = config.model_copy(update={"params": None})
    cells = config.layer_cells()
    multiple = math.lcm(*(CELLS[cell.name].width_multiple(cell) for cell in cells))
    first = CELLS[cells[0].name].width_multiple(cells[0]) if config.widths is not None else multiple

    def size(steps: int) -> int:
        return count(_resized(config, steps * first))

    if size(1) > most:
        raise UsageError(f"no width fits {most:,} {what}: width {first} already has {size(1):,}; raise the budget.")
    low, high = 1, 2
    while size(high) <= most:
        low, high = high, 2 * high
        if high > _WIDEST:
            raise UsageError(f"the width does not change the {what} of this model; leave that budget out.")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) <= most else (low, middle)
    return _resized(config, low * first)


def _resized(config: ModelConfig, width: int) -> ModelConfig:
    if config.widths is None:
        return config.model_copy(update={"width": width})
    scale = width / config.widths[0]
    steps = [CELLS[cell.name].width_multiple(cell) for cell in config.layer_cells()]
    sized = zip(config.widths, steps, strict=True)
    changes: dict[str, Any] = {"widths": tuple(step * max(1, round(scale * size / step)) for size, step in sized)}
    if config.embedding.size is not None:
        size = max(1, round(scale * config.embedding.size))
        changes["embedding"] = config.embedding.model_copy(update={"size": size})
    return config.model_copy(update=changes)
