"""Properties of every character of a text, with which units are compared; and a user's own, from a table.

A property belongs to the byte just read; that of a token is its value at the token's last byte, so that a word-level
model is compared with what holds at the end of each word. Columns and depths are counted in characters.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unrolled.analyse.passage import PassageText
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.registry import unknown_name
from unrolled.data.fields import Fields, column_of
from unrolled.data.reading import read_plain

__all__ = ["PROPERTIES", "Property", "property_of", "read_property"]

_LINE, _SPACE, _TAB, _QUOTE = 0x0A, 0x20, 0x09, 0x22
_OPENING_QUOTES = ("“".encode(), b"``")
_CLOSING_QUOTES = ("”".encode(), b"''")


class Property(NamedTuple):
    """meaning: one phrase. of: bytes of a text (m,) uint8 -> its value after each of them, (m,) float64."""

    meaning: str
    of: Callable[[np.ndarray], np.ndarray]


def _depth(pairs: tuple[bytes, ...]) -> Callable[[np.ndarray], np.ndarray]:
    opening = np.isin(np.arange(256), [pair[0] for pair in pairs])
    closing = np.isin(np.arange(256), [pair[1] for pair in pairs])

    def of(data: np.ndarray) -> np.ndarray:
        """Never below zero: a bracket that closes nothing is passed over."""
        level = np.cumsum(opening[data].astype(np.int64) - closing[data])
        # what closes nothing lowers the floor under all that follows
        return (level - np.minimum(np.minimum.accumulate(level), 0)).astype(np.float64) if len(data) else level * 1.0

    return of


def _quote(data: np.ndarray) -> np.ndarray:
    """1 from an opening quotation mark to before the closing one: " alternates, “ ” and `` '' say which they are. A
    blank line ends a quotation that was left open, so that one missing mark does not turn all that follows round."""
    text, found, inside, at = data.tobytes(), np.zeros(len(data)), False, 0
    while at < len(text):
        if text.startswith(_OPENING_QUOTES, at):
            inside = True
        elif text.startswith(_CLOSING_QUOTES, at) or text.startswith(b"\n\n", at):
            inside = False
        elif text[at] == _QUOTE:
            inside = not inside
        found[at] = inside
        at += 1
    return found


def _columns(data: np.ndarray) -> np.ndarray:
    """Characters of the line up to this one, from 1; a line end, after which a line begins, has 0."""
    begins = (data & 0xC0) != 0x80
    total = np.cumsum(begins)
    line_ends = data == _LINE
    before = np.maximum.accumulate(np.where(line_ends, total, 0))
    return (total - before).astype(np.float64)


def _indent(data: np.ndarray) -> np.ndarray:
    """Spaces and tabs, one each, at the beginning of the line, as far as it has been read."""
    found, value, leading = np.zeros(len(data)), 0, True
    for t, byte in enumerate(data.tolist()):
        if byte == _LINE:
            value, leading = 0, True
        elif leading and byte in (_SPACE, _TAB):
            value += 1
        else:
            leading = False
        found[t] = value
    return found


def _word_end(data: np.ndarray) -> np.ndarray:
    """1 at a byte that is no white space and is followed by white space or the end of the text."""
    space = np.isin(data, [_SPACE, _TAB, _LINE, 0x0D])
    follows = np.append(space[1:], True)[: len(data)]
    return (~space & follows).astype(np.float64)


PROPERTIES = {
    "quote": Property("inside quotation marks", _quote),
    "depth": Property("depth of brackets ( [ {, all together", _depth((b"()", b"[]", b"{}"))),
    "round": Property("depth of ( )", _depth((b"()",))),
    "square": Property("depth of [ ]", _depth((b"[]",))),
    "curly": Property("depth of { }", _depth((b"{}",))),
    "line_position": Property("characters since the line began", _columns),
    "word_end": Property("last character of a word (known only from the next one)", _word_end),
    "indent": Property("spaces at the beginning of the line", _indent),
}
"""Name -> property."""


def property_of(name: str, text: PassageText) -> np.ndarray:
    """A built-in property at the last byte of every token, (n,) float64. Raises UsageError for an unknown name."""
    if name not in PROPERTIES:
        raise unknown_name("property", name, PROPERTIES)
    return _at_tokens(PROPERTIES[name].of(text.data), text.ends)


def _at_tokens(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """A token without text (an end symbol) has the value before it; 0 at the beginning."""
    return np.concatenate([[0.0], values])[ends]


def read_property(path: str | Path, column: str, text: PassageText) -> np.ndarray:
    """A column of numbers of a tab-separated table with a header, at the last character of every token.

    The table has a row for every character of the text, line ends included, or for every token.

    Raises:
        UsageError: no such column, other rows than characters or tokens. UnrolledError: a field that is no number.
    """
    # a quotation mark is a character like any other, and no field holds a line end
    head, *lines = read_plain(path).rstrip("\n").split("\n")
    names = head.split("\t")
    place, rows, values = column_of(names, column, str(path)), Fields(str(path), len(names)), []
    for number, line in enumerate(lines, start=2):
        fields = rows.of(line.split("\t"), f"line {number} of {path}")
        try:
            values.append(float(fields[place]))
        except (IndexError, ValueError) as error:
            raise UnrolledError(f"line {number} of {path} has no number in column {column!r}; correct it.") from error
    if not np.isfinite(values).all():
        raise UnrolledError(f"column {column!r} of {path} has a value that is not a finite number; correct it.")
    tokens, characters = len(text.ends), np.cumsum((text.data & 0xC0) != 0x80)
    total = int(characters[-1]) if len(characters) else 0
    if len(values) == total:
        return _at_tokens(np.array(values)[characters - 1], text.ends)
    if len(values) == tokens:
        return np.array(values)
    raise UsageError(
        f"{path} has {len(values):,} rows for {total:,} characters and {tokens:,} tokens that are read; give one row "
        "for each character, or for each token."
    )
