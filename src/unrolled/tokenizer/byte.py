"""Bytes as tokens."""

from collections.abc import Iterable
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field

from unrolled.core import config as core
from unrolled.data.tokens import Encoded
from unrolled.tokenizer.base import Tokenizer

__all__ = ["ByteTokenizer"]

_UNSEEN = b"<unk>"


class ByteTokenizer(Tokenizer):
    """256 ids, one per byte value: reads any file, loses nothing, needs no training. It has no end symbol.

    With ``values = "seen"`` there is one id per byte value that the training text has, in order of value, and one
    more, the last, for all others: the small vocabularies of the published enwik8 systems.
    """

    kind = "byte"
    reads_bytes = True

    class Config(core.Config):
        """Settings of the byte tokenizer."""

        name: Literal["byte"] = Field(default="byte", description="tokenizer")
        values: Literal["all", "seen"] = Field(
            default="all",
            description="ids for all 256 byte values, or for those of the training text and one for all others",
        )

    def __init__(self, config: Any = None, values: Iterable[int] = ()):
        config = config or self.Config()
        self.values = list(values) if config.values == "seen" else list(range(256))
        pieces = [bytes([value]) for value in self.values]
        self.unk_id = len(pieces) if config.values == "seen" else None
        super().__init__(config, pieces if self.unk_id is None else [*pieces, _UNSEEN])
        self._lookup = np.full(256, -1, np.int64)
        self._lookup[self.values] = np.arange(len(self.values))

    @classmethod
    def needs_training(cls, config: Any) -> bool:
        """Only to find the values of the training text."""
        return config.values == "seen"

    @classmethod
    def train(cls, config: Any, blocks: Iterable[bytes]) -> Self:
        """Note which values occur, where the settings ask for it."""
        if config.values == "all":
            return cls(config)
        seen = np.zeros(256, np.int64)
        for block in blocks:
            seen += np.bincount(np.frombuffer(block, np.uint8), minlength=256)
        return cls(config, np.flatnonzero(seen).tolist())

    def encode_block(self, block: bytes) -> Encoded:
        """One token per byte."""
        data = np.frombuffer(block, np.uint8)
        if self.unk_id is None:
            return Encoded.exact(data)
        ids = self._lookup[data]
        positions = np.flatnonzero(ids < 0)
        ids[positions] = self.unk_id
        # the piece of the last id stands for one byte; whether a byte begins a character depends on its value
        begins = (data[positions] & 0xC0) != 0x80
        size = len(_UNSEEN)
        return Encoded(ids, positions, begins.astype(np.int64) - size, np.full(len(positions), 1 - size, np.int64))

    def to_json(self) -> dict[str, Any]:
        """The values, where they are not all."""
        return {"values": self.values} if self.unk_id is not None else {}

    @classmethod
    def from_json(cls, config: Any, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        if config.values == "all":
            return cls(config)
        values = state["values"]
        if not isinstance(values, list) or not all(type(value) is int and 0 <= value < 256 for value in values):
            raise ValueError("values are bytes")
        if values != sorted(set(values)):
            raise ValueError("values rise")
        return cls(config, values)
