"""Exact counts of words, characters and bytes for any range of tokens.

A token id counts by itself and by its predecessor: ``words = words[id] + (opens[id] & closes[previous])``,
``characters = characters[id] + (implied[id] & ~closes[previous])``, bytes like characters. Before the first
token the previous one counts as closing. A newline counts as one word (the end symbol of the literature) and
one character; a word begins at anything but a blank (white space of ASCII) or newline after a blank, a newline or the
start. Hence a word-level and a byte-level reading of one text have the same number of words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from unrolled.data.plain import BLANKS

__all__ = ["UnitTables", "Units"]

_TO_SPACE = bytes.maketrans(BLANKS + b"\n", b" " * (len(BLANKS) + 1))
# In the classes below ``bytes`` is a field.
Pieces: TypeAlias = Sequence[bytes]


class Units(NamedTuple):
    """How much text a range of tokens covers."""

    tokens: int
    words: int
    characters: int
    bytes: int

    def __add__(self, other: object) -> "Units":
        """Sum of two ranges (not the concatenation of tuples)."""
        if not isinstance(other, Units):
            return NotImplemented
        return Units(*(a + b for a, b in zip(tuple(self), tuple(other), strict=True)))


@dataclass(frozen=True)
class UnitTables:
    """Per-id arrays, each of length vocabulary size; int32 counts and boolean flags (``ends``: ends a line)."""

    words: np.ndarray
    opens: np.ndarray
    closes: np.ndarray
    characters: np.ndarray
    implied: np.ndarray
    bytes: np.ndarray
    ends: np.ndarray

    @classmethod
    def from_pieces(cls, pieces: Pieces, implied: Sequence[bool] | None = None) -> "UnitTables":
        """Tables of a vocabulary.

        Args:
            pieces: the UTF-8 bytes that each id stands for; an empty piece is a mark without text.
            implied: ids written with a space before them unless they begin a line (words), default none.
                Such an id is always one new word.
        """
        size = len(pieces)
        tables = cls(
            np.zeros(size, np.int32),
            np.zeros(size, bool),
            np.zeros(size, bool),
            np.zeros(size, np.int32),
            np.zeros(size, bool) if implied is None else np.array(implied, bool),
            np.array([len(piece) for piece in pieces], np.int32),
            np.array([piece.endswith(b"\n") for piece in pieces], bool),
        )
        for index, piece in enumerate(pieces):
            # a word of a word tokenizer is one, whatever it holds
            spaced = piece.replace(b"\n", b" ") if tables.implied[index] else piece.translate(_TO_SPACE)
            inner = len(spaced.split(b" ")) - spaced.split(b" ").count(b"")
            opens = bool(piece) and not spaced.startswith(b" ")
            tables.opens[index] = opens and not tables.implied[index]
            tables.words[index] = inner - tables.opens[index] + piece.count(b"\n")
            tables.closes[index] = not piece or spaced.endswith(b" ")
            tables.characters[index] = sum(byte & 0xC0 != 0x80 for byte in piece)
        return tables

    def per_token(self, ids: np.ndarray, previous: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Words, characters and bytes of each token.

        Args:
            ids: (n,) integers.
            previous: the id before the first, None at the start of a text.
        Returns:
            Three int64 arrays (n,): words, characters, bytes.
        """
        closed = self._closed(ids, previous)
        separators = self.implied[ids] & ~closed
        return (
            self.words[ids].astype(np.int64) + (self.opens[ids] & closed),
            self.characters[ids].astype(np.int64) + separators,
            self.bytes[ids].astype(np.int64) + separators,
        )

    def count(self, ids: np.ndarray, previous: int | None = None) -> Units:
        """Totals over ``ids`` (n,), which follow ``previous`` (None: the start of a text)."""
        # As per_token, but by how often each id occurs: several times as fast on long ranges.
        times = np.bincount(ids, minlength=len(self.words))
        closed = self._closed(ids, previous)
        opened = int((self.opens[ids] & closed).sum()) if self.opens.any() else 0
        separators = int((self.implied[ids] & ~closed).sum()) if self.implied.any() else 0
        return Units(
            len(ids),
            int(times @ self.words) + opened,
            int(times @ self.characters) + separators,
            int(times @ self.bytes) + separators,
        )

    def _closed(self, ids: np.ndarray, previous: int | None) -> np.ndarray:
        """Whether the token before each of ``ids`` ends a word (a space or newline, or there is none)."""
        closed = np.empty(len(ids), bool)
        if len(ids):
            closed[0] = previous is None or bool(self.closes[previous])
            np.take(self.closes, ids[:-1], out=closed[1:])
        return closed
