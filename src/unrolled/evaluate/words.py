"""Texts as blocks with the words in them: running text, or a table with one word a line."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, NamedTuple

import numpy as np

from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.data.reading import BLOCK, Part, Piece, check_utf8, read_parts

__all__ = ["ROW", "StreamPart", "TextBlock", "Unit", "WordTable", "read_text", "read_words"]

_WORD = re.compile(rb"[^ \n]+|\n")
_READ = 1 << 16
ROW = (
    "file", "line", "index", "offset", "word", "token", "tokens", "unknown", "surprisal_bits", "entropy_bits", "rank",
    "top",
)  # fmt: skip
"""Names of what is written of a word or token; the columns of a table that are kept stand beside them."""


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


@dataclass(frozen=True)
class StreamPart(Part):
    """Text that arrives on a stream, such as standard input: given on as soon as a line is whole."""

    stream: BinaryIO = field(kw_only=True)

    def chunks(self) -> Iterator[bytes]:
        """See :meth:`Part.chunks`."""
        read = getattr(self.stream, "read1", self.stream.read)
        held: list[bytes] = []
        while data := read(_READ):
            held.append(data)
            if b"\n" in data or sum(map(len, held)) >= BLOCK:
                yield b"".join(held)
                held = []
        yield from held


class _Place:
    """How far a text has been read, and the units that this gives."""

    def __init__(self) -> None:
        self.line, self.words, self.characters, self.blank = 1, 0, 0, False

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


def _pieces(part: Part, utf8: bool) -> Iterator[Piece]:
    pieces = read_parts([part])
    return map(check_utf8, pieces) if utf8 else pieces


def read_text(part: Part, utf8: bool = True) -> Iterator[TextBlock]:
    """Running text: words are what stands between spaces and line ends, as in every count of words here.

    Args:
        utf8: refuse anything else; only a tokenizer of bytes reads it.
    Raises:
        UsageError: not UTF-8. UnrolledError: an unreadable file.
    """
    place = _Place()
    for piece in _pieces(part, utf8):
        before = _characters(piece.data) + place.characters
        units = [
            place.unit(match.group(), int(before[match.start()]), match.end()) for match in _WORD.finditer(piece.data)
        ]
        place.characters = int(before[-1])
        yield TextBlock(piece.data, units)


class WordTable(NamedTuple):
    """How a table is read: tab-separated, quotes are plain characters.

    column: name of the column with the words; None for one word a line without a header.
    keep: columns whose fields come along. line_by: a line of the text ends where this column changes.
    """

    column: str | None = None
    keep: tuple[str, ...] = ()
    line_by: str | None = None

    def check(self) -> None:
        """Raises UsageError for columns where the table has no header, or whose names the rows need for themselves."""
        if self.column is None and (self.keep or self.line_by):
            raise UsageError(
                "columns are kept and end lines only in a table with a header; name its words with --column."
            )
        for name in self.keep:
            if name in ROW:
                raise UsageError(f"a column named {name!r} cannot be kept, since the rows have one; rename it first.")

    def find(self, header: list[str], name: str) -> list[int]:
        """Where the wanted columns are: the words', the one that ends lines (or the words' again), those kept."""
        wanted = [self.column or "", self.line_by or self.column or "", *self.keep]
        for column in wanted:
            if column not in header:
                raise unknown_name(f"column of {name}:", column, header)
        return [header.index(column) for column in wanted]


def read_words(part: Part, table: WordTable) -> Iterator[TextBlock]:
    """A text given as one word a line; a blank line ends a line of the text, and so does the end of the file.

    Words are joined by single spaces. Every word that is read gives one unit of kind word, in order. Two blank lines
    make a blank line in the text, which divides documents.

    Raises:
        UsageError: not UTF-8; an unknown column; a row with too few fields or without a word.
    """
    table.check()
    place, places, last = _Place(), [0, 0], ""
    number, header = 0, table.column is None
    for lines in itertools.chain(_lines(_pieces(part, True)), [None]):
        made = _Made(place)
        for line in lines or ():
            number += 1
            if not header:
                places, header = table.find(line.rstrip("\r").split("\t"), part.name), True
                continue
            if not line.strip():
                made.add(b"\n")
                continue
            word, value, kept = _fields(line, places, table, f"line {number} of {part.name}")
            if table.line_by is not None and place.words and value != last:
                made.add(b"\n")
            last = value
            made.add(word.encode(), kept)
        if lines is None and place.words:
            made.add(b"\n")
        if made.units:
            yield TextBlock(b"".join(made.data), made.units)


class _Made:
    """A block under way."""

    def __init__(self, place: _Place):
        self.place, self.size = place, 0
        self.data: list[bytes] = []
        self.units: list[Unit] = []

    def add(self, word: bytes, kept: tuple[str, ...] = ()) -> None:
        """A word after a space, unless it begins a line; or a line end."""
        place, space = self.place, b""
        if place.words and word != b"\n":
            space = b" "
        self.size += len(space) + len(word)
        place.characters += len(space)
        self.units.append(place.unit(word, place.characters, self.size, kept))
        place.characters += len(word.decode())
        self.data += [space, word]


def _fields(line: str, places: Sequence[int], table: WordTable, where: str) -> tuple[str, str, tuple[str, ...]]:
    """The word of a row, the field that ends lines, and the fields to keep."""
    fields = line.rstrip("\r").split("\t")
    if table.column is None and len(fields) > 1:
        raise UsageError(f"{where} has several columns; name the one with the words with --column.")
    if max(places) >= len(fields):
        raise UsageError(f"{where} has {len(fields)} field(s), fewer than the header; correct it.")
    word, value, *kept = (fields[place] for place in places)
    word = word.strip(" ")
    if not word:
        raise UsageError(f"{where} has no word; leave a sentence's end wholly blank.")
    return word, value, tuple(kept)


def _lines(pieces: Iterable[Piece]) -> Iterator[list[str]]:
    """Whole lines, as many as have arrived."""
    held = b""
    for piece in pieces:
        *whole, held = (held + piece.data).split(b"\n")
        yield [line.decode() for line in whole]
    if held:
        yield [held.decode()]
