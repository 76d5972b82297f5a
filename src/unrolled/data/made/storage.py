"""Facts that the weights must hold, and a string that one state must hold."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from unrolled.core.random import RandomStreams
from unrolled.data.made.base import Answers, Batch, Problem, ProblemConfig, Span

__all__ = ["Compress", "CompressConfig", "Memorise", "MemoriseConfig"]

_CUE, _BLANK = 1, 2


class MemoriseConfig(ProblemConfig):
    """Settings of memorising."""

    name: Literal["memorise"] = "memorise"
    facts: int = Field(default=256, ge=2, le=65536, description="keys, each with one value for all rows")
    vocab: int = Field(default=64, ge=2, le=65536, description="symbols of values")
    length: Span = Field(default=32, description="keys of a row")
    book: int = Field(default=0, ge=0, description="seed of the facts")


class Memorise(Problem):
    """Keys whose values are the same in every row, and stand in none: the weights must hold them (Poli et al. 2024,
    arXiv:2403.17844: memorisation). The value of each key is due at the key.
    """

    Config = MemoriseConfig
    fixed = ("book",)
    EXAMPLES = (MemoriseConfig(facts=20, vocab=5, length=(4, 6)), MemoriseConfig(facts=20, vocab=5, length=5, book=1))

    def __init__(self, config: MemoriseConfig):
        super().__init__(config)
        g = np.random.Generator(np.random.PCG64(RandomStreams(config.book).key("made facts")))
        self._book = 1 + config.facts + g.integers(0, config.vocab, config.facts)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start, keys, values."""
        return (">", *(f"k{i}" for i in range(self.config.facts)), *(f"v{i}" for i in range(self.config.vocab)))

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        keys = g.integers(0, self.config.facts, (rows, self.config.length))
        inputs = np.concatenate([np.zeros((rows, 1), np.int64), 1 + keys], 1)
        targets, weight = np.zeros_like(inputs), np.zeros(inputs.shape, np.float32)
        targets[:, 1:], weight[:, 1:] = self._book[keys], 1
        return Batch(inputs, targets, weight, {})

    def answers(self, batch: Batch) -> Answers:
        """Reads the book fact by fact."""
        book = {f"k{key}": f"v{int(value) - 1 - self.config.facts}" for key, value in enumerate(self._book)}
        targets, weight = np.zeros_like(batch.inputs), np.zeros_like(batch.weight)
        for row, line in enumerate(batch.inputs.tolist()):
            for place, symbol in enumerate(line):
                if self.symbols[symbol] in book:
                    targets[row, place] = self.symbols.index(book[self.symbols[symbol]])
                    weight[row, place] = 1
        return Answers(targets, weight)

    def time(self) -> int:
        """The start symbol and the keys."""
        return self.longest().config.length + 1

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Facts are learned, so that no other setting can be measured; longer rows must not matter."""
        return {"length": (32, 128)}

    def chance(self) -> float:
        """Of all values."""
        return 1 / self.config.vocab


class CompressConfig(ProblemConfig):
    """Settings of compressing."""

    name: Literal["compress"] = "compress"
    vocab: int = Field(default=16, ge=2, le=65536, description="symbols of the string")
    length: Span = Field(default=16, description="symbols of the string")


class Compress(Problem):
    """A string, a cue, then blanks, at which the string is due in its order (Poli et al. 2024, arXiv:2403.17844:
    compression): all of it must be held in the state at the cue. There one vector is given to an MLP with the number of
    the symbol wanted; here the model reads on. Group ``index``: place in the string, from 0.
    """

    Config = CompressConfig
    EXAMPLES = (CompressConfig(vocab=4, length=5), CompressConfig(length=(2, 4)))

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start, cue, blank, and those of the string."""
        return (">", "=", "_", *(f"s{i}" for i in range(self.config.vocab)))

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        length = self.config.length
        string = 3 + g.integers(0, self.config.vocab, (rows, length))
        inputs = np.full((rows, 2 * length + 1), _BLANK)
        inputs[:, 0], inputs[:, 1 : length + 1], inputs[:, length + 1] = 0, string, _CUE
        targets, weight, index = np.zeros_like(inputs), np.zeros(inputs.shape, np.float32), np.full(inputs.shape, -1)
        targets[:, length + 1 :], weight[:, length + 1 :] = string, 1
        index[:, length + 1 :] = np.arange(length)
        return Batch(inputs, targets, weight, {"index": index})

    def answers(self, batch: Batch) -> Answers:
        """What stands before the cue."""
        targets, weight = np.zeros_like(batch.inputs), np.zeros_like(batch.weight)
        for row, line in enumerate(batch.inputs.tolist()):
            cue = line.index(_CUE)
            targets[row, cue:], weight[row, cue:] = line[1:cue], 1
        return Answers(targets, weight)

    def time(self) -> int:
        """The start symbol, the string, the cue, and blanks up to the last symbol of the answer."""
        return 2 * self.longest().config.length + 1

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Longer strings."""
        return {"length": (8, 16, 32, 64)}

    def chance(self) -> float:
        """Of all symbols."""
        return 1 / self.config.vocab

    def group_values(self) -> dict[str, Sequence[int]]:
        """Places in the string."""
        return {"index": range(self.longest().config.length)}
