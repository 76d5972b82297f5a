"""Sequences of words as tokens of their own, above any vocabulary that is made from a text."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator

from unrolled.core.config import Config
from unrolled.data.plain import BLANKS
from unrolled.data.tokens import Encoded
from unrolled.tokenizer import TOKENIZERS, AnyTokenizerConfig, tokenizer_value
from unrolled.tokenizer.base import Tokenizer

__all__ = ["MultiWordConfig", "MultiWordTokenizer"]

_BASES = ("byte", "char", "word", "bpe", "unigram")
_MOST = 1 << 20


class MultiWordConfig(Config):
    """Options of multi-word tokens."""

    name: Literal["multiword"] = Field(default="multiword", description="tokenizer")
    base: AnyTokenizerConfig = Field(
        default_factory=lambda: TOKENIZERS.parse("word"),
        description=f"the tokenizer whose tokens are put together: {', '.join(_BASES)}",
    )
    k: int = Field(
        default=1000, ge=0, le=_MOST, description="sequences of words that become a token, the most frequent"
    )
    n: int = Field(default=3, ge=2, le=8, description="words of such a sequence, at most")
    min_count: int = Field(default=2, ge=1, description="sequences seen less often in training are none of them")

    @field_validator("base")
    @classmethod
    def _known_base(cls, value: Any) -> Any:
        if value.name not in _BASES:
            raise ValueError(f"multi-word tokens stand above one of {', '.join(_BASES)}, not {value.name}")
        return value


class MultiWordTokenizer(Tokenizer):
    """Multi-word tokens (Gee et al. 2023): the most frequent sequences of 2 to n words are a token each.

    A text is encoded by the base; then, left to right, the longest sequence that begins at a word and ends with one
    becomes one token. The base's ids stay as they are, those of the sequences follow them. A word begins after a
    blank, and where letters, digits and other signs meet; with words as tokens each is one. No sequence holds a line
    end or the unknown word, so that the text that comes back, and its words, characters and bytes, are those of the
    base.
    """

    kind = "multiword"
    Config = MultiWordConfig

    def __init__(self, config: MultiWordConfig, base: Tokenizer, sequences: Sequence[Sequence[int]]):
        implied = base.tables.implied
        pieces = [_text(base, ids) for ids in sequences]
        every = [*implied.tolist(), *(bool(implied[ids[0]]) for ids in sequences)]
        super().__init__(config, [*base.pieces, *pieces], every, base.end_id)
        self.base, self.sequences = base, [tuple(ids) for ids in sequences]
        self._borders = _Borders(base)
        self._longest = _Longest(self.sequences, base.vocab_size)

    @property
    def reads_bytes(self) -> bool:  # type: ignore[override]
        """As the base."""
        return self.base.reads_bytes

    @property
    def blanks(self) -> bytes:  # type: ignore[override]
        """As the base."""
        return self.base.blanks

    @property
    def unk_id(self) -> int | None:
        """The base's unknown word, or None."""
        return getattr(self.base, "unk_id", None)

    @classmethod
    def train(cls, config: MultiWordConfig, blocks: Iterable[bytes]) -> Self:
        """Make the base, then count the sequences of its words; the text is held in memory."""
        text = list(blocks)
        base = TOKENIZERS[config.base.name].train(config.base, text)  # type: ignore[attr-defined]
        return cls.above(config, base, text)

    @classmethod
    def above(cls, config: MultiWordConfig, base: Tokenizer, blocks: Iterable[bytes]) -> Self:
        """The same above a tokenizer that is there already."""
        return cls(config, base, _frequent(config, base, blocks) if config.k else [])

    def encode_block(self, block: bytes) -> Encoded:
        """Tokens of the base, sequences put together."""
        encoded = self.base.encode_block(block)
        begins, found = self._longest.of(encoded.ids, self._borders.of(encoded.ids))
        if not len(begins):
            return encoded
        sizes = self._longest.sizes[found]
        keep = np.ones(len(encoded.ids), bool)
        for begin, size in zip(begins.tolist(), sizes.tolist(), strict=True):
            keep[begin + 1 : begin + size] = False
        ids = encoded.ids.copy()
        ids[begins] = self.base.vocab_size + found
        places = np.cumsum(keep) - 1
        return Encoded(ids[keep], places[encoded.positions], encoded.characters, encoded.bytes)

    def end_document(self, last: bytes) -> Encoded:
        """As the base."""
        return self.base.end_document(last)

    def token(self, index: int) -> str:
        """The base's name of a token, or those of a sequence's words."""
        if index < self.base.vocab_size:
            return self.base.token(index)
        between = " " if self.tables.implied[index] else ""
        return between.join(self.base.token(part) for part in self.sequences[index - self.base.vocab_size])

    def find(self, text: str) -> int | None:
        """As the base, and the texts of sequences."""
        found = self.base.find(text)
        return super().find(text) if found is None else found

    def to_json(self) -> dict[str, Any]:
        """The base's file, and the ids of the base of each sequence."""
        return {"base": tokenizer_value(self.base), "sequences": [list(ids) for ids in self.sequences]}

    @classmethod
    def from_json(cls, config: MultiWordConfig, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        value, sequences = state["base"], state["sequences"]
        kind = TOKENIZERS[config.base.name]  # type: ignore[attr-defined]
        if value["kind"] != "tokenizer" or value["config"] != config.base.model_dump(mode="json"):
            raise ValueError("base")
        if type(value["version"]) is not int or not 1 <= value["version"] <= kind.version:
            raise ValueError("version")
        base = kind.from_json(config.base, value["state"])
        base.version = value["version"]
        known = range(base.vocab_size)
        if not isinstance(sequences, list) or len(sequences) > _MOST:
            raise ValueError("sequences")
        for ids in sequences:
            if not isinstance(ids, list) or len(ids) < 2 or not all(type(one) is int and one in known for one in ids):
                raise ValueError("sequence")
        if len({tuple(ids) for ids in sequences}) != len(sequences):
            raise ValueError("sequences")
        return cls(config, base, sequences)


def _text(base: Tokenizer, ids: Sequence[int]) -> bytes:
    """The bytes of a sequence, without the space before its first word where words have one."""
    decoder = base.decoder(None)
    return b"".join(decoder.bytes_of(index) for index in ids)


class _Borders:
    """Where words begin among the ids of a base."""

    def __init__(self, base: Tokenizer):
        self._implied = base.tables.implied
        self._first = np.array([_sign(piece[:1]) for piece in base.pieces], np.int8)
        self._last = np.array([_sign(piece[-1:]) for piece in base.pieces], np.int8)

    def of(self, ids: np.ndarray) -> np.ndarray:
        """(n + 1,) bool: at each id, and at the end, whether a word begins there."""
        begins = np.ones(len(ids) + 1, bool)
        before, after = self._last[ids[:-1]], self._first[ids[1:]]
        begins[1:-1] = self._implied[ids[1:]] | ((before != after) & (before != _BLANK))
        return begins


_BLANK, _LETTER, _DIGIT, _OTHER = range(4)


def _sign(byte: bytes) -> int:
    """Which kind of sign a byte is; those of signs beyond ASCII are letters, nothing is a blank."""
    if not byte or byte in BLANKS + b"\n":
        return _BLANK
    return _DIGIT if byte.isdigit() else _LETTER if byte.isalpha() or byte[0] >= 0x80 else _OTHER


class _Longest:
    """Finds sequences, the longest first, by a tree of their ids whose edges are sorted keys."""

    def __init__(self, sequences: Sequence[tuple[int, ...]], size: int):
        edges: dict[int, int] = {}
        ends = [-1]
        for number, ids in enumerate(sequences):
            node = 0
            for one in ids:
                node = edges.setdefault(node * size + one, len(ends))
                if node == len(ends):
                    ends.append(-1)
            ends[node] = number
        self._size, self._ends = size, np.array(ends, np.int64)
        self._keys = np.array(sorted(edges), np.int64)
        self._nodes = np.array([edges[key] for key in sorted(edges)], np.int64)
        self.sizes = np.array([len(ids) for ids in sequences], np.int64)

    def of(self, ids: np.ndarray, begins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where sequences begin, none within another, and their numbers.

        Args:
            ids: (n,). begins: (n + 1,) bool, where words begin and the text ends.
        """
        best = np.full(len(ids), -1, np.int64)
        at = np.flatnonzero(begins[:-1]) if len(self.sizes) else np.zeros(0, np.int64)
        node, depth = np.zeros(len(at), np.int64), 0
        while len(at):
            keys = node * self._size + ids[at + depth]
            places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            known = self._keys[places] == keys
            at, node, depth = at[known], self._nodes[places[known]], depth + 1
            whole = (self._ends[node] >= 0) & begins[at + depth]
            best[at[whole]] = self._ends[node[whole]]
            inside = at + depth < len(ids)
            at, node = at[inside], node[inside]
        taken, free = [], 0
        places = np.flatnonzero(best >= 0)
        for place, size in zip(places.tolist(), self.sizes[best[places]].tolist(), strict=True):
            if place >= free:
                taken.append(place)
                free = place + size
        chosen = np.array(taken, np.int64)
        return chosen, best[chosen]


def _frequent(config: MultiWordConfig, base: Tokenizer, blocks: Iterable[bytes]) -> list[tuple[int, ...]]:
    """The most frequent sequences of words, as ids of the base; of equal ones the shorter, then the earlier."""
    borders, unknown = _Borders(base), getattr(base, "unk_id", None)
    barred = np.array([not piece or b"\n" in piece or i == unknown for i, piece in enumerate(base.pieces)])
    numbers: dict[tuple[int, ...], int] = {(): 0}  # 0: what no sequence goes across
    parts = []
    for block in blocks:
        ids = base.encode_block(block).ids
        edges = np.flatnonzero(borders.of(ids)).tolist()
        listed, odd = ids.tolist(), barred[ids].tolist()
        words = (() if any(odd[a:b]) else tuple(listed[a:b]) for a, b in itertools.pairwise(edges))
        parts.append(np.array([*(numbers.setdefault(word, len(numbers)) for word in words), 0], np.int64))
    known = list(numbers)
    words = np.concatenate([*parts, np.zeros(1, np.int64)])
    found: list[tuple[int, int, int]] = []  # -count, words, first place
    named, whole = words, words > 0  # of the sequence that begins at each place
    for n in range(2, config.n + 1):
        whole = whole[:-1] & (words[n - 1 :] > 0)
        keys = np.where(whole, named[:-1] * len(known) + words[n - 1 :], -1)
        unique, first, named, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        frequent = np.flatnonzero((counts >= config.min_count) & (unique >= 0))
        top = frequent[np.argsort(-counts[frequent], kind="stable")[: config.k + 1]]
        limit = counts[top[-1]] if len(top) > config.k else 0
        found += [(-int(counts[i]), n, int(first[i])) for i in frequent[counts[frequent] >= limit]]
    found.sort()
    return [
        tuple(itertools.chain.from_iterable(known[word] for word in words[place : place + n].tolist()))
        for _, n, place in found[: config.k]
    ]
