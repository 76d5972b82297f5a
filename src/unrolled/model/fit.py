"""The largest model under a parameter budget, for any cell."""

import math
from collections.abc import Callable
from typing import Any

from unrolled.cells import CELLS
from unrolled.core.errors import UsageError
from unrolled.model.config import ModelConfig

__all__ = ["largest", "widest"]

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
        raise UsageError(f"no width fits {most:,} {what}: width {first} already has {size(1):,}; allow as many.")
    low = largest(size, most, _WIDEST)
    if low is None:
        raise UsageError(f"the width does not change the {what} of this model; leave that budget out.")
    return _resized(config, low * first)


def largest(size: Callable[[int], int], most: int, limit: int) -> int | None:
    """The largest whole number whose size is at most ``most``; None where that is above ``limit``.

    Sizes grow with the number, mostly as its square, so that roots of sizes are nearly straight: between two numbers
    the next one is tried where the straight line is, which takes a few sizes where halving takes twenty.

    Args:
        size: at 1 it is at most ``most``.
    """
    low, low_size, high = 1, size(1), 4
    while (high_size := size(high)) <= most:
        low, low_size, high = high, high_size, 4 * high
        if low > limit:
            return None
    halve = False
    while high - low > 1:
        ends = math.sqrt(low_size), math.sqrt(high_size)
        share = 0.5 if halve else (math.sqrt(most) - ends[0]) / (ends[1] - ends[0])
        middle = min(max(low + 1, low + int(share * (high - low))), high - 1)
        middle_size, before = size(middle), high - low
        if middle_size <= most:
            low, low_size = middle, middle_size
        else:
            high, high_size = middle, middle_size
        halve = high - low > before // 2  # a line that bends may creep along
    return low


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
