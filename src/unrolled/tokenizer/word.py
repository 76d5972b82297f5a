"""Words as tokens."""

import re
from collections import Counter
from collections.abc import Iterable
from itertools import repeat
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from unrolled.core import config as core
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import read_bounded
from unrolled.core.registry import shown
from unrolled.data.plain import BLANKS, decode_text, tell_blanks
from unrolled.data.tokens import Encoded
from unrolled.tokenizer.base import Tokenizer

__all__ = ["WordTokenizer", "vocabulary_file"]

_END = b"\n"
_TO_SPACE = bytes.maketrans(BLANKS, b" " * len(BLANKS))
_MOST_VOCABULARY = 256 << 20
_WORD = re.compile(r"[^ \n]+")


class WordTokenizer(Tokenizer):
    """Words between spaces, and one end symbol per line, blank lines included.

    White space of ASCII divides words (a no-break space belongs to a word). Ids are in order of first appearance in
    the training text. Decoding gives the text with single spaces, none at the ends of a line. In version 1 of the
    format the space alone divides words, and a tab belongs to one.
    """

    kind = "word"
    version = 2

    class Config(core.Config):
        """Settings of the word tokenizer."""

        name: Literal["word"] = Field(default="word", description="tokenizer")
        min_count: int | None = Field(
            default=None,
            ge=1,
            description="words seen less often in training become the unknown word; default: 1 where the "
            "text has an unknown word of its own, else 2",
        )
        max_size: int | None = Field(
            default=None, ge=2, description="keep at most this many ids, the most frequent ones; default: all"
        )
        order: Literal["seen", "frequency"] = Field(
            default="seen", description="ids in order of first appearance, or of falling frequency"
        )
        vocabulary: str | None = Field(
            default=None,
            description="file with one word per line in order of id: the vocabulary, instead of the training text",
        )
        end_word: str = Field(default="<eos>", min_length=1, description="name of the end symbol")
        unk_word: str = Field(
            default="<unk>", min_length=1, description="name of the unknown word, also within the text"
        )

        @field_validator("end_word", "unk_word")
        @classmethod
        def _one_word(cls, value: str) -> str:
            if not _WORD.fullmatch(value):
                raise ValueError("a word holds no space and no line end")
            return value

        @model_validator(mode="after")
        def _two_words(self) -> Self:
            if self.end_word == self.unk_word:
                raise UsageError("tokenizer.end_word and tokenizer.unk_word are the same; rename one.")
            return self

    def __init__(self, config: Any, words: list[str]):
        names = [word.encode() for word in words]
        if len(set(names)) != len(names):
            raise UsageError("the vocabulary holds a word twice; remove one of the two.")
        if config.end_word not in words:
            raise UsageError(
                f"the vocabulary lacks the end symbol {config.end_word!r}; add it or set tokenizer.end_word."
            )
        self.words = words
        end = words.index(config.end_word)
        pieces = [*names[:end], _END, *names[end + 1 :]]
        super().__init__(config, pieces, [piece != _END for piece in pieces], end)
        self._ids = {piece: index for index, piece in enumerate(pieces)}
        self.unk_id = self._ids.get(config.unk_word.encode())

    @property
    def blanks(self) -> bytes:  # type: ignore[override]
        """White space of ASCII; in version 1 the space."""
        return b" " if self.version == 1 else BLANKS

    @classmethod
    def train(cls, config: Any, blocks: Iterable[bytes]) -> Self:
        """Count the words of the text, or read the pinned vocabulary and leave the text alone."""
        if config.vocabulary is not None:
            return cls(config, _read_vocabulary(config.vocabulary))
        end, unk = config.end_word.encode(), config.unk_word.encode()
        counts: Counter[bytes] = Counter()
        last = b""
        told = False
        for last in blocks:
            told = told or tell_blanks(last, "the training text")
            counts.update(_words(last, BLANKS))
        if last and not last.endswith(b"\n"):
            counts[_END] += 1
        # The end symbol spelled out in the text is a word that the vocabulary cannot hold.
        lost = counts.pop(end, 0)
        least = config.min_count or (1 if unk in counts else 2)
        kept = {word for word, count in counts.items() if count >= least or word in (_END, unk)}
        if len(kept) < len(counts) or lost:
            kept.add(unk)
        if config.max_size is not None and len(kept) > config.max_size:
            ranked = sorted(kept - {_END, unk}, key=lambda word: -counts[word])
            kept = {_END, unk, *ranked[: config.max_size - 2]}
        counts[_END] += 0
        counts[unk] += sum(count for word, count in counts.items() if word not in kept) + lost
        words = [word for word in counts if word in kept]
        if config.order == "frequency":
            words.sort(key=lambda word: -counts[word])
        return cls(config, [config.end_word if word == _END else word.decode() for word in words])

    def encode_block(self, block: bytes) -> Encoded:
        """One token per word and per line end."""
        words = _words(block, self.blanks)
        ids = np.fromiter(map(self._ids.get, words, repeat(-1)), np.int64, len(words))
        positions = np.flatnonzero(ids < 0)
        if not len(positions):
            return Encoded.exact(ids)
        unknown = [words[position] for position in positions]
        if self.unk_id is None:
            name = unknown[0].decode("utf-8", errors="replace")
            raise UsageError(
                f"the word {shown(name)} is not in the vocabulary, which has no unknown word; train the tokenizer "
                "with tokenizer.min_count=2, or add one to the vocabulary."
            )
        ids[positions] = self.unk_id
        size = len(self.pieces[self.unk_id])
        letters = np.array([len(word.decode()) for word in unknown], np.int64)
        return Encoded(ids, positions, letters - size, np.array([len(w) for w in unknown], np.int64) - size)

    def end_document(self, last: bytes) -> Encoded:
        """The end symbol of a last line that has no line end; it covers no character of the text."""
        if last.endswith(b"\n"):
            return super().end_document(last)
        one = np.ones(1, np.int64)
        return Encoded(one * (self.end_id or 0), one * 0, -one, -one)

    def token(self, index: int) -> str:
        """The word, or the name of the end symbol."""
        return self.words[index]

    def find(self, text: str) -> int | None:
        """The id of a word; the end symbol answers to its name and to a newline."""
        return self.end_id if text == self.config.end_word else super().find(text)

    def to_json(self) -> dict[str, Any]:
        """The words, in order of id."""
        return {"words": self.words}

    @classmethod
    def from_json(cls, config: Any, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        words = state["words"]
        if not isinstance(words, list) or not all(isinstance(word, str) and _WORD.fullmatch(word) for word in words):
            raise ValueError("words are a list of texts without spaces and line ends")
        return cls(config, words)


def _words(block: bytes, blanks: bytes) -> list[bytes]:
    if blanks != b" ":  # other blanks are rare
        for blank in blanks.replace(b" ", b""):
            if blank in block:
                block = block.translate(_TO_SPACE)
                break
    return [word for word in block.replace(b"\n", b" \n ").split(b" ") if word]


def _read_vocabulary(path: str) -> list[str]:
    try:
        data = read_bounded(vocabulary_file(path), _MOST_VOCABULARY)
    except UnrolledError as error:
        raise UsageError(f"cannot read the vocabulary {path}; give a UTF-8 file with one word per line.") from error
    words = [line.strip() for line in decode_text(data, path).split("\n")]
    for number, word in enumerate(words, 1):
        if any(blank in word.encode() for blank in BLANKS):
            raise UsageError(f"line {number} of the vocabulary {path} holds white space; give one word per line.")
    return [word for word in words if word]


def vocabulary_file(path: str) -> Path:
    """The file of a pinned vocabulary, whether it is there or not; ~ is the home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user: a folder of that name, then
        return Path(path)
