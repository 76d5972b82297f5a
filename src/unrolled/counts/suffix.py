"""Where any sequence of tokens occurs in documents, by a suffix array."""

from collections.abc import Sequence

import numpy as np

from unrolled.core.errors import UsageError

__all__ = ["DEPTH", "SuffixIndex"]

DEPTH = 64
"""Longest sequence that can be asked for: suffixes are sorted by so many tokens."""

# below so many occurrences all that follow them are looked at; above, one search for each token that follows
_FEW = 1 << 14


class SuffixIndex:
    """Documents of ids, and the order of all their suffixes; 8 bytes a token.

    A range is ``(low, high)``: the suffixes that begin with a sequence lie side by side, and ``high - low`` is how
    often it occurs. No sequence runs from one document into the next.

    Args:
        documents: ids of each, below ``vocab_size``; at least one token in all.
    Raises:
        UsageError: no tokens, or 2^31 and more.
    Sources:
        built by doubling, Manber and Myers 1993.
    """

    def __init__(self, documents: Sequence[np.ndarray], vocab_size: int):
        lengths = np.array([len(one) + 1 for one in documents], np.int64)
        if lengths.sum() == len(documents):
            raise UsageError("the documents hold no tokens; give some text.")
        if lengths.sum() >= 1 << 31:
            raise UsageError("documents of 2^31 tokens and more cannot be indexed; divide them.")
        self.vocab_size = vocab_size
        self.starts = np.concatenate([[0], lengths.cumsum()])
        self.ids = np.full(int(self.starts[-1]), vocab_size, np.int32)
        for start, one in zip(self.starts, documents, strict=False):
            self.ids[start : start + len(one)] = one
        self.order = _sorted(self.ids)
        self.tokens = len(self.ids) - len(documents)

    @property
    def whole(self) -> tuple[int, int]:
        """The range of the empty sequence."""
        return 0, len(self.order)

    def extend(self, place: tuple[int, int], depth: int, token: int) -> tuple[int, int]:
        """The range of a sequence with one token more.

        Args:
            place: range of the sequence. depth: its length. token: what follows.
        """
        low, high = place
        return self._first(low, high, depth, token), self._first(low, high, depth, token + 1)

    def find(self, sequence: Sequence[int]) -> tuple[int, int]:
        """The range of a sequence; empty where it does not occur."""
        place = self.whole
        for depth, token in enumerate(sequence):
            place = self.extend(place, depth, token)
        return place

    def following(self, place: tuple[int, int], depth: int) -> np.ndarray:
        """The distinct ids that follow a sequence, rising."""
        low, high = place
        if depth >= DEPTH:
            return np.zeros(0, np.int32)
        if high - low <= _FEW:
            found = np.unique(self._at(np.arange(low, high), depth))
            return found[found < self.vocab_size]
        tokens: list[int] = []
        while low < high and (token := int(self._at(np.array([low]), depth)[0])) < self.vocab_size:
            tokens.append(token)
            low = self._first(low, high, depth, token + 1)
        return np.array(tokens, np.int32)

    def positions(self, place: tuple[int, int]) -> np.ndarray:
        """Where the occurrences of a range begin, in ``ids``."""
        return self.order[place[0] : place[1]]

    def documents(self, positions: np.ndarray) -> np.ndarray:
        """The numbers of the documents that positions lie in."""
        return np.searchsorted(self.starts, positions, side="right") - 1

    def _at(self, suffixes: np.ndarray, depth: int) -> np.ndarray:
        """The tokens at a depth of some suffixes; the end of the last document lies beyond the array too."""
        return self.ids[np.minimum(self.order[suffixes] + depth, len(self.ids) - 1)]

    def _first(self, low: int, high: int, depth: int, token: int) -> int:
        """The first suffix of a range whose token at a depth is not below ``token``."""
        while low < high:
            middle = (low + high) // 2
            if int(self.ids[min(int(self.order[middle]) + depth, len(self.ids) - 1)]) < token:
                low = middle + 1
            else:
                high = middle
        return low


def _sorted(ids: np.ndarray) -> np.ndarray:
    """The suffixes in the order of their first :data:`DEPTH` tokens, int32."""
    rank, known = ids.astype(np.int64), 1
    while True:
        after = np.full(len(ids), -1, np.int64)
        after[: len(ids) - known] = rank[known:]
        key = rank * (int(rank.max()) + 2) + after + 1
        order = np.argsort(key, kind="stable")
        changes = np.concatenate([[0], np.diff(key[order]) != 0]).cumsum()
        rank = np.empty(len(ids), np.int64)
        rank[order] = changes
        known *= 2
        if known >= DEPTH or changes[-1] == len(ids) - 1:
            return order.astype(np.int32)
