"""Unicode characters as tokens."""

from collections.abc import Iterable
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field

from unrolled.core import config as core
from unrolled.core.errors import UsageError
from unrolled.data.tokens import Encoded
from unrolled.tokenizer.base import Tokenizer

__all__ = ["CharTokenizer"]

_CODES = 0x110000


def _codes(block: bytes) -> np.ndarray:
    return np.frombuffer(block.decode("utf-8").encode("utf-32-le"), np.uint32)


class CharTokenizer(Tokenizer):
    """One id per character that the training text has, in order of code point; the newline is one of them.

    Characters that the vocabulary lacks are an error, or ``<unk>`` with ``unknown = "unk"``.
    """

    kind = "char"

    class Config(core.Config):
        """Settings of the character tokenizer."""

        name: Literal["char"] = Field(default="char", description="tokenizer")
        unknown: Literal["error", "unk"] = Field(
            default="error", description="a character outside the vocabulary is an error, or becomes <unk>"
        )
        min_count: int = Field(
            default=1,
            ge=1,
            description="characters seen less often in training become <unk> (with unknown = unk)",
        )

    def __init__(self, config: Any, characters: str):
        self.characters = characters
        self.unk_id = len(characters) if config.unknown == "unk" else None
        super().__init__(config, [c.encode() for c in characters] + ([b"<unk>"] if self.unk_id is not None else []))
        self._lookup = np.full(_CODES, -1, np.int32)
        self._lookup[[ord(c) for c in characters]] = np.arange(len(characters))

    @classmethod
    def train(cls, config: Any, blocks: Iterable[bytes]) -> Self:
        """Take every character of the text that occurs ``min_count`` times."""
        if config.min_count > 1 and config.unknown != "unk":
            raise UsageError(
                "tokenizer.min_count above 1 needs a symbol for rare characters; set tokenizer.unknown=unk."
            )
        counts = np.zeros(_CODES, np.int64)
        for block in blocks:
            found = np.bincount(_codes(block))
            counts[: len(found)] += found
        return cls(config, "".join(map(chr, np.flatnonzero(counts >= config.min_count))))

    def encode_block(self, block: bytes) -> Encoded:
        """One token per character."""
        codes = _codes(block)
        ids = self._lookup[codes].astype(np.int64)
        positions = np.flatnonzero(ids < 0)
        if not len(positions):
            return Encoded.exact(ids)
        if self.unk_id is None:
            odd = chr(int(codes[positions[0]]))
            raise UsageError(
                f"the character {odd!r} (U+{ord(odd):04X}) is not in the vocabulary of the char tokenizer; "
                "set tokenizer.unknown=unk or use the byte tokenizer."
            )
        ids[positions] = self.unk_id
        lengths = np.array([len(chr(code).encode()) for code in codes[positions]], np.int64)
        size = len(self.pieces[self.unk_id])
        return Encoded(ids, positions, np.full(len(positions), 1 - size, np.int64), lengths - size)

    def to_json(self) -> dict[str, Any]:
        """The characters, in order of id."""
        return {"characters": self.characters}

    @classmethod
    def from_json(cls, config: Any, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        characters = state["characters"]
        if not isinstance(characters, str) or len(set(characters)) != len(characters):
            raise ValueError("characters are a text without one twice")
        return cls(config, characters)
