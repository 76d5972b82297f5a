"""The largest model under a parameter budget, for any cell."""

import math
from typing import Any

import torch

from unrolled.cells import CELLS
from unrolled.core.errors import UsageError
from unrolled.model.lm import LanguageModel, ModelConfig

__all__ = ["count_params", "fit_width"]


def count_params(config: ModelConfig, vocab_size: int) -> int:
    """Number of parameters of a configuration, without allocating them."""
    with torch.device("meta"):
        return LanguageModel(config, vocab_size).num_params()


def fit_width(config: ModelConfig, vocab_size: int, params: int) -> ModelConfig:
    """``config`` with the largest ``width`` that its cells accept and whose model has at most ``params`` parameters.

    Where the config fixes the ``widths`` of its layers, these and the embedding size are scaled together, in
    proportion to the first.

    Raises:
        UsageError: even the smallest width is too large.
    """

    cells = config.layer_cells()
    multiple = math.lcm(*(CELLS[cell.name].width_multiple(cell) for cell in cells))
    first = CELLS[cells[0].name].width_multiple(cells[0]) if config.widths is not None else multiple

    def count(steps: int) -> int:
        return count_params(_resized(config, steps * first), vocab_size)

    if count(1) > params:
        raise UsageError(
            f"no width fits {params:,} parameters: width {first} already has {count(1):,}; raise the budget."
        )
    low, high = 1, 2
    while count(high) <= params:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= params else (low, middle)
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
