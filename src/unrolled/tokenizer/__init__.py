"""Tokenizers: text to ids and back, with exact counts of words, characters and bytes."""

import os
import reprlib
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import read_json, write_json
from unrolled.core.registry import Registry
from unrolled.tokenizer.base import Decoder, Tokenizer

__all__ = [
    "TOKENIZERS",
    "AnyTokenizerConfig",
    "Decoder",
    "Tokenizer",
    "load_tokenizer",
    "save_tokenizer",
    "tokenizer_value",
]

TOKENIZERS: Registry[type[Tokenizer]] = Registry(
    "tokenizer",
    {
        "byte": "unrolled.tokenizer.byte:ByteTokenizer",
        "char": "unrolled.tokenizer.char:CharTokenizer",
        "word": "unrolled.tokenizer.word:WordTokenizer",
        "bpe": "unrolled.tokenizer.subword:BPETokenizer",
        "unigram": "unrolled.tokenizer.subword:UnigramTokenizer",
        "symbols": "unrolled.tokenizer.symbols:SymbolTokenizer",
        "number": "unrolled.tokenizer.number:NumberTokenizer",
        "multiword": "unrolled.tokenizer.multiword:MultiWordTokenizer",
        "pretrained": "unrolled.tokenizer.pretrained:PretrainedTokenizer",
    },
)

AnyTokenizerConfig = Annotated[SerializeAsAny[Config], BeforeValidator(TOKENIZERS.parse)]
"""Type of a field that holds the configuration of any tokenizer, given as name, mapping or object."""

_MOST_FILE = 128 << 20  # the largest vocabulary of subwords, 2^20, takes 90 MB with its merges


def tokenizer_value(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a tokenizer's file holds, as plain JSON values."""
    return {
        "kind": "tokenizer",
        "version": tokenizer.version,
        "config": tokenizer.config.model_dump(mode="json"),
        "state": tokenizer.to_json(),
    }


def save_tokenizer(tokenizer: Tokenizer, path: str | os.PathLike[str]) -> None:
    """Write a tokenizer as one JSON file, atomically."""
    write_json(path, tokenizer_value(tokenizer))


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Read what :func:`save_tokenizer` wrote.

    Raises:
        UnrolledError: missing, damaged, of another kind, or of a newer version.
    """
    value = read_json(path, _MOST_FILE)
    if not isinstance(value, dict) or value.get("kind") != "tokenizer" or not isinstance(value.get("config"), dict):
        raise UnrolledError(f"{path} is not a tokenizer file of unrolled.")
    cls = TOKENIZERS[str(value["config"].get("name"))]
    version = value.get("version")
    if type(version) is not int or not 1 <= version <= cls.version:
        raise UnrolledError(
            f"{path} has format {reprlib.repr(version)}, this release reads up to {cls.version}; use the release that "
            "wrote it."
        )
    try:
        config, state = cls.Config.parse(value["config"]), value["state"]
        if not isinstance(state, dict):
            raise ValueError("state")
        tokenizer = cls.from_json(config, state)
        tokenizer.version = version  # an older one encodes as it did
        return tokenizer
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise UnrolledError(f"{path} is a damaged tokenizer file; restore it or train again.") from error
