"""The spellings of subwords and words."""

import itertools
from collections.abc import Sequence

import numpy as np

from unrolled.tokenizer.base import Tokenizer
from unrolled.tokenizer.subword import Subword, byte_letters
from unrolled.tokenizer.symbols_of import END, Sheet, Spelling

__all__ = ["SubwordSpelling", "WordSpelling"]

_REMEMBERED = 64  # tokens of one word that are looked back at
# one character of each kind that words are cut by: letter, number, other sign, blank
_KINDS = ("a", "0", "#", "\u00a0")
_APOSTROPHE = "'"
_CONTRACTED = {"'l": "l", "'r": "e", "'v": "e"}  # beginnings of 'll, 're and 've, and what makes them whole
_BLANKS = b" \t\r\x0b\x0c"


class SubwordSpelling(Spelling):
    """Byte-level subwords, cut into words by GPT-2's pattern.

    A border between words is certain once no continuation moves it: blanks at the end belong to what follows, and after
    an apostrophe a letter may still become a contraction ('ll). Of a word of more than 64 tokens the last 64 are
    looked at.

    Where words are cut at the end of a text depends on what comes next after blanks (the last one belongs to a word
    that follows), within an apostrophe's contraction, and in a character that is not whole. There a token string may
    come if it is the beginning of what the tokenizer makes of the text followed by a letter, a number, another sign, a
    blank or nothing.
    """

    def __init__(self, tokenizer: Tokenizer, sheets: Sequence[Sheet] = ()):
        assert isinstance(tokenizer, Subword)
        self.engine = tokenizer
        spelled: list[Sequence[int]] = [tuple(piece) for piece in tokenizer.pieces]
        end = tokenizer.end_id
        assert end is not None
        spelled[end] = (0x0A,) if tokenizer.pieces[end] else (END,)
        super().__init__(tokenizer, sheets or [Sheet(spelled)])
        blanks = max(len(piece) - len(piece.lstrip(_BLANKS)) for piece in tokenizer.pieces)
        # a character is not whole at three places; after each blank of a run, and in a contraction, there are two ways
        self.vague = 3 * (len(_KINDS) - 1) + blanks + 2
        self._letters = {value: letter for letter, value in byte_letters().items()}
        self._end = end
        self._known: tuple[str | None, set[tuple[str, ...]]] = (None, set())
        stop = None if tokenizer.config.end == "line" else -1  # a line end is inside no token
        may = [(one, piece) for one, piece in enumerate(tokenizer.pieces) if one != end and b"\n" not in piece[:stop]]
        self._pieces = [
            (one, piece, head if rest == b"" else None) for one, piece in may for head, rest in [_parted(piece)]
        ]

    def kept(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """See :meth:`Spelling.kept`."""
        pieces = [self.tokenizer.pieces[one] for one in ids]
        if not ids or ids[-1] == self._end or pieces[-1].endswith(b"\n"):
            return ()
        head, _ = _parted(b"".join(pieces))
        words = self.engine.words_of(head)
        if not words:
            return ids[-_REMEMBERED:]
        if len(words) > 1 and words[-2] == _APOSTROPHE:
            words = words[:-1]
        border = len("".join(words[:-1]))  # letters of bytes: one a byte
        low = int(np.searchsorted(np.cumsum([len(piece) for piece in pieces]), border, "right"))
        return ids[low:][-_REMEMBERED:]

    def find_allowed(self, ids: tuple[int, ...]) -> np.ndarray:
        """See :meth:`Spelling.find_allowed`."""
        before = b"".join(self.tokenizer.pieces[one] for one in ids)
        head, rest = _parted(before)
        mask, plain = np.zeros(self.tokenizer.vocab_size, bool), []
        for index, piece, text in self._pieces:
            if text is not None and rest == b"":
                whole, left = head + text, b""
            else:
                whole, left = _parted(before + piece)
                if left is None:
                    continue
            if left or (whole[-1] != "\n" and (whole[-1].isspace() or whole[-2:] in _CONTRACTED)):
                mask[index] = (*ids, index) in self._ways(whole, left)
            else:
                plain.append((index, whole))
        for (index, _), found in zip(plain, self.engine.encode_lines([text for _, text in plain]), strict=True):
            mask[index] = found == [*ids, index]
        mask[self._end] = rest == b"" and self.engine.encode_lines([head]) == [list(ids)]
        return mask

    def _ways(self, head: str, rest: bytes) -> set[tuple[int, ...]]:
        """The token strings of a text that goes on, perhaps within a character."""
        found = set() if rest else {tuple(self.engine.encode_lines([head])[0])}
        ending = "".join(self._letters[value] for value in rest)
        for words in self._cut(head):
            last = self.engine.tokens_of(words[-1] + ending)
            found.add((*itertools.chain.from_iterable(map(self.engine.tokens_of, words[:-1])), *last))
        return found

    def _cut(self, head: str) -> set[tuple[str, ...]]:
        """The words of a text that goes on, the last one as far as it is there."""
        if head != self._known[0]:  # asked of the same text for each byte that may begin a character
            found = set()
            for kind in (*_KINDS, _CONTRACTED.get(head[-2:], "a")):
                words = self.engine.words_of(head + kind)
                found.add((*words[:-1], words[-1][: -len(kind.encode())]))
            self._known = head, found
        return self._known[1]


class WordSpelling(Spelling):
    """Words: every word but the first of a line is spelled with a space before it. Any string of words is one that the
    tokenizer makes; a word outside the vocabulary is spelled by no token."""

    def __init__(self, tokenizer: Tokenizer, sheets: Sequence[Sheet] = ()):
        tables, pieces = tokenizer.tables, tokenizer.pieces
        spaced = [(b" " if implied else b"") + piece for implied, piece in zip(tables.implied, pieces, strict=True)]
        super().__init__(tokenizer, sheets or [Sheet(list(map(tuple, one))) for one in (pieces, spaced)])
        self._all = np.ones(len(pieces), bool)

    def sheet(self, ids: tuple[int, ...]) -> int:
        """See :meth:`Spelling.sheet`."""
        return int(bool(ids) and not self.tokenizer.tables.closes[ids[-1]])

    def kept(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """See :meth:`Spelling.kept`."""
        return ids[-1:]

    def find_allowed(self, ids: tuple[int, ...]) -> np.ndarray:
        """See :meth:`Spelling.find_allowed`."""
        return self._all


def _parted(data: bytes) -> tuple[str, bytes | None]:
    """The whole characters of a text, and the bytes that begin one more; None in their place where it is no UTF-8."""
    try:
        return data.decode(), b""
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return data[: error.start].decode(), data[error.start :]
        return "", None
