"""Tokens as strings of symbols: what a text's bytes say of the tokens that it may have come from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from unrolled.core.errors import UsageError
from unrolled.core.registry import Registry
from unrolled.data.tokens import Encoded
from unrolled.tokenizer.base import Tokenizer
from unrolled.tokenizer.byte import ByteTokenizer

__all__ = ["END", "SPELLINGS", "ByteSymbols", "Sheet", "Spelling", "spelling_of"]

END = 256
"""The symbol of an end of a document that stands for no byte."""
_MASKS = 1 << 25  # bytes of masks that are kept


class Sheet:
    """Tokens in the order of their spelling.

    Args:
        spelled: symbols of every id; an id without symbols is never a token of a text.

    Attributes:
        order: (n,) ids, sorted by spelling. signs: (longest, n) the symbol of each at a place; -1 where it has ended.
    """

    def __init__(self, spelled: Sequence[Sequence[int]]):
        found = sorted((tuple(one), index) for index, one in enumerate(spelled) if len(one))
        self.order = np.array([index for _, index in found], np.int64)
        self.spelled = [one for one, _ in found]
        self.signs = np.full((max(map(len, self.spelled), default=0), len(found)), -1, np.int16)
        for place, one in enumerate(self.spelled):
            self.signs[: len(one), place] = one

    def narrowed(self, low: int, high: int, depth: int, symbol: int) -> tuple[int, int, int]:
        """Of the tokens low..high-1, which share ``depth`` symbols, those that go on with a symbol.

        Returns:
            begin, middle, end: begin..middle-1 end with the symbol, middle..end-1 go on after it.
        """
        row = self.signs[depth, low:high]
        begin, end = (low + int(np.searchsorted(row, symbol, side)) for side in ("left", "right"))
        after = self.signs[depth + 1, begin:end] if depth + 1 < len(self.signs) else np.full(end - begin, -1)
        return begin, begin + int(np.searchsorted(after, -1, "right")), end


class Spelling(ABC):
    """How a tokenizer's tokens spell texts, and which token strings it makes of them.

    Args:
        tokenizer: whose pieces are spelled. sheets: of the places where a token may stand.

    Attributes:
        vague: how many covers there may be at once beside one for each place where a token may begin.
    """

    vague: int = 0

    def __init__(self, tokenizer: Tokenizer, sheets: Sequence[Sheet]):
        self.tokenizer, self.sheets = tokenizer, tuple(sheets)
        self._masks: dict[tuple[int, ...], np.ndarray] = {}

    @property
    def symbols(self) -> "ByteSymbols":
        """The tokenizer of the symbols."""
        return ByteSymbols(self.tokenizer)

    def sheet(self, ids: tuple[int, ...]) -> int:
        """The number of the sheet of the token after ``ids``."""
        return 0

    @abstractmethod
    def kept(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """What has to be remembered of tokens: those after the last border that no continuation moves."""

    @abstractmethod
    def find_allowed(self, ids: tuple[int, ...]) -> np.ndarray:
        """Boolean (V,): the tokens for which ``ids`` and the token begin what the tokenizer makes of some text."""

    def allowed(self, ids: tuple[int, ...]) -> np.ndarray:
        """:meth:`find_allowed`, remembered."""
        found = self._masks.get(ids)
        if found is None:
            if len(self._masks) * self.tokenizer.vocab_size > _MASKS:
                self._masks.clear()
            found = self._masks[ids] = self.find_allowed(ids)
        return found

    def most_covers(self) -> int:
        """How many beginnings of tokens a text can end with at once, the empty one included: the longest chain of
        suffixes in the tree of all spellings (Aho and Corasick 1975), and what is vague."""
        prefixes = {one[:size] for sheet in self.sheets for one in sheet.spelled for size in range(len(one))}
        depth: dict[tuple[int, ...], int] = {(): 1}
        for prefix in sorted(prefixes - {()}, key=len):
            suffix = next(prefix[low:] for low in range(1, len(prefix) + 1) if prefix[low:] in prefixes)
            depth[prefix] = 1 + depth[suffix]
        return max(depth.values()) + self.vague


class ByteSymbols(ByteTokenizer):
    """The bytes of the texts of another tokenizer, with a symbol for its end of a document if that has no bytes."""

    reads_bytes = False  # texts are checked to be UTF-8: nothing else is made of tokens

    def __init__(self, base: Tokenizer):
        super().__init__()
        self.base = base
        if base.end_id is not None and not base.pieces[base.end_id]:
            self.pieces.append(b"")
            self.end_id = END

    @property
    def blanks(self) -> bytes:  # type: ignore[override]
        """The base's."""
        return self.base.blanks

    def end_document(self, last: bytes) -> Encoded:
        """What the base closes a document with, by symbol."""
        found = self.base.end_document(last)
        return found._replace(ids=np.full(len(found.ids), END if self.end_id == END else 0x0A, np.int64))

    def token(self, index: int) -> str:
        """The byte; ``<eos>`` for the end symbol."""
        return "<eos>" if index == END else super().token(index)

    def to_json(self) -> dict[str, Any]:
        """Raises UsageError: it is made of another tokenizer."""
        raise UsageError("the symbols of a tokenizer are not saved; save the tokenizer.")


SPELLINGS: Registry[type[Spelling]] = Registry(
    "spelling",
    {
        "bpe": "unrolled.tokenizer.spellings:SubwordSpelling",
        "unigram": "unrolled.tokenizer.spellings:SubwordSpelling",
        "word": "unrolled.tokenizer.spellings:WordSpelling",
    },
)


def spelling_of(tokenizer: Tokenizer) -> Spelling:
    """The spelling of a tokenizer. Raises UsageError for one that has none."""
    if tokenizer.kind in ("byte", "char"):
        raise UsageError(
            f"the tokens of a {tokenizer.kind} tokenizer are symbols already, so that nothing is to be added up; "
            "leave out the symbols."
        )
    if tokenizer.kind not in SPELLINGS:
        known = ", ".join(sorted(SPELLINGS))
        raise UsageError(
            f"which bytes the tokens of a {tokenizer.kind} tokenizer spell is not known, only of: {known}; leave out "
            "the symbols."
        )
    return SPELLINGS[tokenizer.kind](tokenizer, ())
