"""Vocabularies of rows with labels."""

from collections.abc import Iterable
from typing import Any

from unrolled.tokenizer import TOKENIZERS, Tokenizer

__all__ = ["trained_on"]


def trained_on(wanted: Any, texts: Iterable[str]) -> Tokenizer:
    """A tokenizer of the kind that is wanted (absent: words), trained on texts.

    A text to label may hold any word, so that among words there must be one for those that training does not know.
    """
    config: Any = wanted or TOKENIZERS.parse("word")
    text = "".join(f"{text}\n" for text in texts)
    if config.name == "word" and config.vocabulary is None:
        text += f"{config.unk_word} {config.unk_word}\n"
        config = config.model_copy(update={"min_count": config.min_count or 2})
    return TOKENIZERS[config.name].train(config, [text.encode()])
