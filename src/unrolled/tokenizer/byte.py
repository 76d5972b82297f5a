"""Bytes as tokens."""

from collections.abc import Iterable
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field

from unrolled.core import config as core
from unrolled.data.tokens import Encoded
from unrolled.tokenizer.base import Tokenizer

__all__ = ["ByteTokenizer"]


class ByteTokenizer(Tokenizer):
    """256 ids, one per byte value: reads any file, loses nothing, needs no training. It has no end symbol."""

    kind = "byte"
    reads_bytes = True

    class Config(core.Config):
        """No settings."""

        name: Literal["byte"] = Field(default="byte", description="tokenizer")

    def __init__(self, config: Any = None):
        super().__init__(config or self.Config(), [bytes([value]) for value in range(256)])

    @classmethod
    def train(cls, config: Any, blocks: Iterable[bytes]) -> Self:
        """The one byte tokenizer; ``blocks`` are not read."""
        return cls(config)

    def encode_block(self, block: bytes) -> Encoded:
        """One token per byte."""
        return Encoded.exact(np.frombuffer(block, np.uint8))

    def to_json(self) -> dict[str, Any]:
        """Nothing: the vocabulary is fixed."""
        return {}

    @classmethod
    def from_json(cls, config: Any, state: dict[str, Any]) -> Self:
        """The one byte tokenizer."""
        return cls(config)
