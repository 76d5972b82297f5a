"""Ids of an exported tokenizer as those of the model: two more than the model has, for padding and for the start."""

import torch
from torch import Tensor

from unrolled.core.errors import UnrolledError
from unrolled.serve.hf.configuration import UnrolledConfig

__all__ = ["own_ids", "own_labels"]


def own_ids(config: UnrolledConfig, ids: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The ids that the model reads, and which of them count.

    Args:
        ids: (batch, time) of the tokenizer. real: boolean (batch, time) by the attention mask; None: all.
    Raises:
        UnrolledError: an id that counts and is none of the vocabulary.
    """
    symbols = config.symbols or config.vocab_size
    padding = None if config.pad_token_id is None or config.pad_token_id < symbols else ids == config.pad_token_id
    if padding is not None and bool(padding.any()):  # finished rows of a batch are fed padding that no mask shows
        real = ~padding if real is None else real & ~padding
    if _start_is_alias(config, symbols):
        ids = ids.masked_fill(ids == config.bos_token_id, config.start_id or 0)
    ids = ids if real is None else ids.masked_fill(~real, 0)
    if not bool(((ids >= 0) & (ids < symbols)).all()):
        raise UnrolledError(
            f"an id lies outside the vocabulary of {symbols:,}; use the model's own tokenizer, and give the attention "
            "mask where there is padding."
        )
    return ids, real


def own_labels(config: UnrolledConfig, labels: Tensor) -> Tensor:
    """Labels in the model's ids; -100, which the loss leaves out, for padding."""
    symbols = config.symbols or config.vocab_size
    if config.pad_token_id is not None and config.pad_token_id >= symbols:
        labels = labels.masked_fill(labels == config.pad_token_id, -100)
    if _start_is_alias(config, symbols):
        labels = labels.masked_fill(labels == config.bos_token_id, config.start_id or 0)
    return labels.to(torch.int64)


def _start_is_alias(config: UnrolledConfig, symbols: int) -> bool:
    return config.bos_token_id is not None and config.bos_token_id >= symbols and config.start_id is not None
