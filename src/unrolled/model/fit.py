"""The largest model under a parameter budget, for any cell."""

import torch

from unrolled.core.errors import UsageError
from unrolled.model.lm import LanguageModel, ModelConfig

__all__ = ["count_params", "fit_width"]


def count_params(config: ModelConfig, vocab_size: int) -> int:
    """Number of parameters of a configuration, without allocating them."""
    with torch.device("meta"):
        return LanguageModel(config, vocab_size).num_params()


def fit_width(config: ModelConfig, vocab_size: int, params: int) -> ModelConfig:
    """``config`` with the largest ``width`` whose model has at most ``params`` parameters.

    Raises:
        UsageError: the config fixes the widths of its layers, or even width 1 is too large.
    """
    if config.widths is not None:
        raise UsageError("fit_width sets model.width, but this config fixes model.widths; remove those.")

    def count(width: int) -> int:
        return count_params(config.model_copy(update={"width": width}), vocab_size)

    if count(1) > params:
        raise UsageError(f"no width fits {params:,} parameters: width 1 already has {count(1):,}; raise the budget.")
    low, high = 1, 2
    while count(high) <= params:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= params else (low, middle)
    return config.model_copy(update={"width": low})
