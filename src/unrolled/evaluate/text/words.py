"""Running text as blocks with the words in them; see :mod:`unrolled.evaluate.text.word_tables` for tables."""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from unrolled.data.plain import BLANKS, Reading, tell_blanks
from unrolled.data.reading import Part, read_parts

__all__ = ["Place", "TextBlock", "Unit", "read_text"]


class Unit(NamedTuple):
    """A word or a line end of a text, with the spaces before it.

    Attributes:
        text: the word; a newline for a line end; empty for the end of a text.
        kind: word, or end for the end of a line or text.
        line, index: from 1; a line's end counts as one more word of it.
        offset: characters of the text before ``text``.
        stop: where it ends in its block, in bytes.
        new_line, new_document: whether a line, or the first line after blank ones, begins with it.
        kept: fields of its row in a table.
    """

    text: str
    kind: Literal["word", "end"]
    line: int
    index: int
    offset: int
    stop: int
    new_line: bool = False
    new_document: bool = False
    kept: tuple[str, ...] = ()


class TextBlock(NamedTuple):
    """A part of a text that ends at a line end or a space, and its units in order."""

    data: bytes
    units: list[Unit]


class Place:
    """How far a text has been read, and the units that this gives."""

    def __init__(self) -> None:
        self.line, self.words, self.characters, self.blank, self.last = 1, 0, 0, False, ""

    def unit(self, word: bytes, offset: int, stop: int, kept: tuple[str, ...] = ()) -> Unit:
        end = word == b"\n"
        self.words += 1
        first = self.words == 1
        text = word.decode("utf-8", errors="replace")
        made = Unit(
            text, "end" if end else "word", self.line, self.words, offset, stop, first and self.line > 1,
            first and self.blank and not end, kept,
        )  # fmt: skip
        if end:
            self.line, self.blank, self.words = self.line + 1, first, 0
        return made


def _characters(data: bytes) -> np.ndarray:
    """How many characters begin before each byte of UTF-8 and before its end, (n + 1,)."""
    begins = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
    return np.concatenate([[0], np.cumsum(begins)])


def read_text(
    part: Part, utf8: bool = True, blanks: bytes = BLANKS, reading: Reading = "text", remedy: str | None = None
) -> Iterator[TextBlock]:
    """Running text: words are what stands between blanks and line ends, as in every count of words here.

    Args:
        utf8: refuse anything else; only a tokenizer of bytes reads it.
        blanks: what divides words, see :attr:`unrolled.tokenizer.Tokenizer.blanks`.
        reading: see :class:`unrolled.data.CorpusConfig`. remedy: how a user asks for ``exact``, for messages.
    Raises:
        UsageError: not UTF-8, or no text. UnrolledError: an unreadable file.
    """
    place, told = Place(), False
    word = re.compile(rb"[^\n%b]+|\n" % re.escape(blanks))
    for piece in read_parts([part], reading, utf8, remedy):
        told = told or tell_blanks(piece.data, piece.source)
        before = _characters(piece.data) + place.characters
        units = [
            place.unit(match.group(), int(before[match.start()]), match.end()) for match in word.finditer(piece.data)
        ]
        place.characters = int(before[-1])
        yield TextBlock(piece.data, units)
