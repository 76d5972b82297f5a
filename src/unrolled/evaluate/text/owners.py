"""Which word or line end each token of a text belongs to."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.registry import shown
from unrolled.evaluate.text.words import TextBlock, Unit
from unrolled.tokenizer import Tokenizer

__all__ = ["TextTokens", "tokens_of"]


class TextTokens(NamedTuple):
    """ids: (n,). owners: (n,) index of the unit of each. offsets: (n,) characters before each."""

    ids: np.ndarray
    owners: np.ndarray
    offsets: np.ndarray
    units: list[Unit]


def tokens_of(
    tokenizer: Tokenizer, blocks: Iterable[TextBlock], close: bool, by_word: bool = False
) -> Iterator[TextTokens]:
    """Tokens with their units; spaces at the end of a block wait for the unit that follows.

    Args:
        close: with the tokens that close a document. by_word: rows are about words.
    Raises:
        UsageError: with ``by_word``, a token that holds several words.
    """
    blanks = tokenizer.blanks
    spaces = np.array([not piece.strip(blanks) for piece in tokenizer.pieces])
    widths = np.array([len(piece) - len(piece.lstrip(blanks)) for piece in tokenizer.pieces], np.int64)
    none = np.zeros(0, np.int64)
    ids, offsets, place, last, data = none, none, 0, Unit("", "end", 1, 0, 0, 0), b""
    for data, units in blocks:
        encoded = tokenizer.encode_block(data)
        begins, ends = _spans(tokenizer, data, encoded)
        characters = np.cumsum(np.concatenate([[0], (np.frombuffer(data, np.uint8) & 0xC0) != 0x80]))
        first = np.where(spaces[encoded.ids], ends, begins + widths[encoded.ids])
        stops = [unit.stop for unit in units]
        owners = np.searchsorted(stops, first, side="right")
        if by_word:
            _check_whole(tokenizer, encoded.ids, units, owners, np.searchsorted(stops, ends - 1, side="right"))
        ids = np.concatenate([ids, encoded.ids])
        offsets = np.concatenate([offsets, characters[begins] + place])
        owners = np.concatenate([np.zeros(len(ids) - len(owners), np.int64), owners])
        place += int(characters[-1])
        whole = int(np.searchsorted(owners, len(units)))
        if whole:
            yield TextTokens(ids[:whole], owners[:whole], offsets[:whole], units)
        ids, offsets = ids[whole:], offsets[whole:]
        last = units[-1] if units else last
    closing = tokenizer.end_document(data).ids if data and close else none
    ids = np.concatenate([ids, closing])
    if len(ids):
        offsets = np.concatenate([offsets, np.full(len(closing), place)])
        line, index = (last.line + 1, 1) if last.text == "\n" else (last.line, last.index + 1)
        unit = Unit("", "end", line, index, place, 0, last.text == "\n")
        yield TextTokens(ids, np.zeros(len(ids), np.int64), offsets, [unit])


def _spans(tokenizer: Tokenizer, data: bytes, encoded: Any) -> tuple[np.ndarray, np.ndarray]:
    """First byte and end of each token in the block."""
    if tokenizer.tables.implied.any():  # words: spaces are no part of any token, and may be several
        signs = np.frombuffer(data, np.uint8)
        between = np.zeros(256, bool)
        between[[*tokenizer.blanks, 0x0A]] = True
        edge = np.diff(np.concatenate([[0], (~between[signs]).view(np.int8), [0]]))
        lines = np.flatnonzero(signs == 0x0A)
        begins = np.sort(np.concatenate([np.flatnonzero(edge == 1), lines]))
        ends = np.sort(np.concatenate([np.flatnonzero(edge == -1), lines + 1]))
        words = np.where(tokenizer.tables.implied, tokenizer.tables.words, 1)[encoded.ids]  # of each token
        last = np.cumsum(words) - 1
        if len(last) and last[-1] == len(ends) - 1:
            begins, ends = begins[last - words + 1], ends[last]
    else:
        sizes = tokenizer.tables.bytes[encoded.ids].astype(np.int64)
        np.add.at(sizes, encoded.positions, encoded.bytes)
        ends = np.cumsum(sizes)
        begins = ends - sizes
    if len(ends) != len(encoded.ids) or (len(ends) and ends[-1] > len(data)):
        raise UnrolledError(f"the tokens of the tokenizer {tokenizer.kind!r} do not cover the text; report this.")
    return begins, ends


def _check_whole(tokenizer: Tokenizer, ids: np.ndarray, units: list[Unit], first: np.ndarray, last: np.ndarray) -> None:
    """Refuse tokens that hold several words. first, last: (n,) units of the first and the last byte of each token."""
    words = np.cumsum([0, *(unit.kind == "word" for unit in units), 0])
    stop = np.minimum(last + 1, len(units))
    several = np.flatnonzero(words[stop] - words[np.minimum(first, stop)] > 1)
    if len(several):
        name = shown(tokenizer.token(int(ids[several[0]])))
        raise UsageError(
            f"the token {name} holds several words, so that each has no surprisal of its own; score tokens (unit = "
            "token), or use a model with another vocabulary."
        )
