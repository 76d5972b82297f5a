"""The two ends of a model: what reads the input before the stack, and the head behind it."""

from typing import Any

from unrolled.core.errors import UsageError
from unrolled.model.config import ModelConfig
from unrolled.model.embedding import Embedding
from unrolled.model.heads import HEADS
from unrolled.model.tables import Tables

__all__ = ["Ends"]


class Ends:
    """Of a language model: an embedding, and a head over the vocabulary. A subclass puts others in their place.

    Attributes:
        whole: whether the model reads whole rows and predicts none of what it reads, so that layers may see all of it.
    """

    whole: bool = False

    def reader(self, config: ModelConfig, vocab_size: int) -> Embedding:
        """What makes the stack's input; it has ``out_width``, ``weight``, ``compute`` and ``looked_up``."""
        return Embedding(vocab_size, config.layer_widths()[0], config.embedding)

    def head(self, config: ModelConfig, vocab_size: int, width: int, reader: Any) -> Any:
        """The head on a stack of this output width. Raises UsageError for what cannot be tied."""
        tied = reader.shared() if config.embedding.tied else None
        if isinstance(tied, Tables) and config.head.name != "projected":
            raise UsageError(
                "an adaptive input is tied to the head projected alone; set head.name=projected, or untie."
            )
        return HEADS[config.head.name](width, vocab_size, config.head, tied)
