"""Subwords as tokens: byte-level BPE and unigram, both lossless, by the library ``tokenizers``."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers, trainers

from unrolled.core import config as core
from unrolled.core.errors import UsageError
from unrolled.data.tokens import Encoded
from unrolled.tokenizer.base import Tokenizer

__all__ = ["BPETokenizer", "Subword", "UnigramTokenizer", "byte_letters", "byte_level"]


def byte_letters() -> dict[str, int]:
    """The letters by which byte-level tokenizers write the 256 bytes (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [value for value in range(256) if value not in plain]
    return {chr(v): v for v in plain} | {chr(256 + n): v for n, v in enumerate(others)}


class _SubwordConfig(core.Config):
    size: int = Field(default=8192, ge=258, le=1 << 20, description="ids, the end symbol and 256 bytes included")
    end: Literal["document", "line"] = Field(
        default="document",
        description="the end symbol <eos> closes every document and stands for no text, or stands for every line end",
    )


class Subword(Tokenizer):
    """What both kinds share. Text is encoded line by line, so ids do not depend on the cut into blocks."""

    def __init__(self, config: Any, state: dict[str, Any]):
        # The description decides, not the engine that was trained: reading it rounds scores.
        self._state = state
        self._engine = engine = _engine(state, self.kind)
        letters = byte_letters()
        size = engine.get_vocab_size()
        names = [engine.id_to_token(index) or "" for index in range(size)]
        pieces = [bytes(letters[letter] for letter in name) for name in names]
        if len({piece for piece in pieces if len(piece) == 1}) != len(letters):
            raise ValueError("a byte is missing, which texts would lose")
        super().__init__(config, [*pieces, b"\n" if config.end == "line" else b""], end=size)

    @staticmethod
    def _engine_and_trainer(config: Any) -> tuple[Engine, Any]:
        raise NotImplementedError

    @classmethod
    def train(cls, config: Any, blocks: Iterable[bytes]) -> Self:
        """Learn the subwords; a short text may give fewer than ``size``."""
        engine, trainer = cls._engine_and_trainer(config)

        def batches() -> Iterator[list[str]]:
            for block in blocks:
                yield _lines(block, config.end == "document")

        engine.train_from_iterator(batches(), trainer)
        return cls(config, json.loads(engine.to_str()))

    def encode_block(self, block: bytes) -> Encoded:
        """Tokens of the block's lines."""
        by_line = self.config.end == "line"
        lines = _lines(block, not by_line)
        coded = self.encode_lines(lines)
        if by_line:
            assert self.end_id is not None
            for ids in coded[: block.count(b"\n")]:
                ids.append(self.end_id)
        return Encoded.exact(np.array([index for ids in coded for index in ids], np.int64))

    def end_document(self, last: bytes) -> Encoded:
        """The end symbol, except after a line that has just ended with one."""
        one = np.ones(1, np.int64)
        if self.config.end == "document":
            return Encoded.exact(one * (self.end_id or 0))
        if last.endswith(b"\n"):
            return super().end_document(last)
        return Encoded(one * (self.end_id or 0), one * 0, -one, -one)

    def encode_lines(self, lines: Sequence[str]) -> list[list[int]]:
        """Ids of texts of one line each, without the end symbol."""
        return [one.ids for one in self._engine.encode_batch_fast(list(lines), add_special_tokens=False)]

    def words_of(self, text: str) -> list[str]:
        """The words that a line is cut into, in the letters of their bytes; no subword crosses their borders."""
        return [word for word, _ in self._engine.pre_tokenizer.pre_tokenize_str(text)]  # type: ignore[union-attr]

    def tokens_of(self, word: str) -> list[int]:
        """Ids of one such word, whose bytes need not be whole characters."""
        return [token.id for token in self._engine.model.tokenize(word)]  # type: ignore[attr-defined]

    def token(self, index: int) -> str:
        """The subword's text, ``<eos>`` for the end symbol."""
        return "<eos>" if index == self.end_id else super().token(index)

    def to_json(self) -> dict[str, Any]:
        """The engine's own description, which the library ``tokenizers`` reads."""
        return {"tokenizers": self._state}

    @classmethod
    def from_json(cls, config: Any, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        return cls(config, state["tokenizers"])


def _engine(state: dict[str, Any], kind: str) -> Engine:
    """The engine of a description. Raises ValueError for one that :meth:`Subword.train` does not make: parts that
    change or drop text, draw at random, or give ids that are not 0, 1, 2, ..."""
    try:
        engine = Engine.from_str(json.dumps(state))
    except Exception as error:  # the package raises nothing more special
        raise ValueError("no description of an engine") from error
    # first of all: a gap of billions would be written out
    if sorted(engine.get_vocab().values()) != list(range(engine.get_vocab_size())):
        raise ValueError("ids")
    described, plain = (json.loads(one.to_str()) for one in (engine, _plain_engine()))
    model = described.pop("model")
    del plain["model"]
    options = {key: value for key, value in model.items() if key not in ("type", "vocab", "merges")}
    if described != plain or model["type"].lower() != kind or any(v not in (None, False) for v in options.values()):
        raise ValueError("another engine")
    return engine


def byte_level(use_regex: bool = True) -> Any:
    """Text to the letters of its bytes, cut into words where ``use_regex``."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def _plain_engine(model: Any = None) -> Engine:
    engine = Engine(model or models.BPE())
    engine.pre_tokenizer = byte_level()  # type: ignore[assignment]
    return engine


def _lines(block: bytes, keep_ends: bool) -> list[str]:
    lines = block.decode("utf-8").split("\n")
    if keep_ends:
        lines = [*(line + "\n" for line in lines[:-1]), lines[-1]]
    return lines if lines[-1] else lines[:-1]


class BPETokenizer(Subword):
    """Byte-level byte-pair encoding (Sennrich et al. 2016 over bytes, as GPT-2)."""

    kind = "bpe"

    class Config(_SubwordConfig):
        """Settings of byte-pair encoding."""

        name: Literal["bpe"] = Field(default="bpe", description="tokenizer")

    @staticmethod
    def _engine_and_trainer(config: Any) -> tuple[Engine, Any]:
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=config.size - 1, initial_alphabet=alphabet, show_progress=False)
        return _plain_engine(models.BPE()), trainer


class UnigramTokenizer(Subword):
    """Unigram language-model subwords (Kudo 2018) over bytes."""

    kind = "unigram"

    class Config(_SubwordConfig):
        """Settings of unigram subwords."""

        name: Literal["unigram"] = Field(default="unigram", description="tokenizer")

    @staticmethod
    def _engine_and_trainer(config: Any) -> tuple[Engine, Any]:
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.UnigramTrainer(vocab_size=config.size - 1, initial_alphabet=alphabet, show_progress=False)
        return _plain_engine(models.Unigram()), trainer

    @classmethod
    def train(cls, config: Any, blocks: Iterable[bytes]) -> Self:
        """Learn the subwords. Raises UsageError when the text is too short for the method."""
        try:
            return super().train(config, blocks)
        except UsageError:
            raise
        except Exception as error:
            raise UsageError("the text is too short for unigram subwords; use tokenizer bpe or byte.") from error
