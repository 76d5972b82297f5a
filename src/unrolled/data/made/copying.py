"""Problems whose answer is a piece of what was read: copying, lookup by an n-gram, induction."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from unrolled.core.errors import UsageError
from unrolled.data.made.base import Answers, Batch, Problem, ProblemConfig, Span, shifted

__all__ = ["Copy", "CopyConfig", "Induction", "InductionConfig", "Lookup", "LookupConfig"]

_CUE, _BLANK = 1, 2
_MOST_TRIES = 1000


class CopyConfig(ProblemConfig):
    """Settings of copying."""

    name: Literal["copy"] = "copy"
    vocab: int = Field(default=16, ge=2, le=65536, description="symbols that are copied")
    length: Span = Field(default=16, description="symbols to copy")
    blanks: int = Field(default=0, ge=0, le=1 << 20, description="blanks that they are scattered among")
    form: Literal["forward", "reverse", "twice"] = Field(default="forward", description="how they are to be given back")


class Copy(Problem):
    """A string, a cue, then the string again: as it was, reversed, or twice (Graves et al. 2014, arXiv:1410.5401; with
    ``blanks`` selective copying, Gu and Dao 2023, arXiv:2312.00752).

    Blanks stand anywhere before the cue, behind the last symbol too. Group ``index``: place in the answer, from 0.
    """

    Config = CopyConfig
    EXAMPLES = (
        CopyConfig(vocab=4, length=(3, 5)),
        CopyConfig(vocab=5, length=6, blanks=7),
        CopyConfig(length=4, form="reverse"),
        CopyConfig(length=3, blanks=2, form="twice"),
    )
    fed = True

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start, cue, blank, and those that are copied."""
        return (">", "=", "_", *(f"s{i}" for i in range(self.config.vocab)))

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        c = self.config
        string = 3 + g.integers(0, c.vocab, (rows, c.length))
        answer = {"forward": string, "reverse": string[:, ::-1], "twice": np.tile(string, 2)}[c.form]
        places = np.sort(np.argsort(g.random((rows, c.length + c.blanks)), 1)[:, : c.length], 1)
        read = np.full((rows, c.length + c.blanks + 1), _BLANK)
        np.put_along_axis(read, places, string, 1)
        read[:, -1] = _CUE
        inputs, targets = shifted(np.concatenate([read, answer], 1))
        asked = np.arange(targets.shape[1]) - read.shape[1]
        index = np.tile(np.maximum(asked, -1), (rows, 1))
        return Batch(inputs, targets, (index >= 0).astype(np.float32), {"index": index})

    def answers(self, batch: Batch) -> Answers:
        """Slices of lists."""
        targets, weight = np.zeros_like(batch.inputs), np.zeros_like(batch.weight)
        for row, line in enumerate(batch.inputs.tolist()):
            cue = line.index(_CUE)
            string = [symbol for symbol in line[1:cue] if symbol != _BLANK]
            answer = {"forward": string, "reverse": string[::-1], "twice": string + string}[self.config.form]
            targets[row, cue:], weight[row, cue:] = answer, 1
        return Answers(targets, weight)

    def time(self) -> int:
        """String, blanks, cue, and the answer."""
        c = self.longest().config
        return c.length + c.blanks + 1 + c.length * (2 if c.form == "twice" else 1)

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Longer strings."""
        return {"length": (8, 16, 32, 64)}

    def chance(self) -> float:
        """Of all symbols."""
        return 1 / self.config.vocab

    def group_values(self) -> dict[str, Sequence[int]]:
        """Places in the answer."""
        c = self.longest().config
        return {"index": range(c.length * (2 if c.form == "twice" else 1))}


class LookupConfig(ProblemConfig):
    """Settings of the lookup by an n-gram."""

    name: Literal["lookup"] = "lookup"
    vocab: int = Field(default=26, ge=2, le=65536, description="symbols of the string")
    length: Span = Field(default=20, description="symbols of the string")
    ngram: int = Field(default=3, ge=1, le=64, description="symbols that are looked up")
    answer: int = Field(default=5, ge=1, le=4096, description="symbols that follow them and are asked for")
    form: Literal["prefix", "suffix"] = Field(
        default="suffix", description="whether the n-gram is named before the string or behind it"
    )


class Lookup(Problem):
    """A string and an n-gram of it; asked for is what follows that in the string (Jelassi et al. 2024,
    arXiv:2402.01032). Prefix form: n-gram / string / answer; suffix form: string / n-gram answer.

    The n-gram occurs once in the string. (The published generator makes sure that some n-gram does, and may then take
    another one.) Group ``index``: place in the answer, from 0.
    """

    Config = LookupConfig
    EXAMPLES = (
        LookupConfig(vocab=6, length=9, ngram=2, answer=3),
        LookupConfig(vocab=4, length=(10, 12), ngram=3, answer=2, form="prefix"),
    )
    fed = True

    def check(self) -> None:
        """See :meth:`Problem.check`."""
        c = self.config
        if self.shortest().config.length < c.ngram + c.answer:
            raise UsageError(f"lookup of {c.ngram} symbols and {c.answer} behind them needs longer strings.")

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start, separator, and those of the string."""
        return (">", "/", *(f"s{i}" for i in range(self.config.vocab)))

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        c, text = self.config, []
        for _ in range(rows):
            string, place = self._unique(g)
            gram, answer = string[place : place + c.ngram], string[place + c.ngram : place + c.ngram + c.answer]
            first, second = (gram, string) if c.form == "prefix" else (string, gram)
            between = [_CUE] if c.form == "prefix" else []
            text.append([*first, _CUE, *second, *between, *answer])
        inputs, targets = shifted(np.array(text))
        index = np.tile(np.maximum(np.arange(inputs.shape[1]) - (inputs.shape[1] - c.answer), -1), (rows, 1))
        return Batch(inputs, targets, (index >= 0).astype(np.float32), {"index": index})

    def _unique(self, g: np.random.Generator) -> tuple[list[int], int]:
        """A string, and the place of an n-gram that occurs once in it and has room for the answer behind it."""
        c = self.config
        for _ in range(_MOST_TRIES):
            string = (2 + g.integers(0, c.vocab, c.length)).tolist()
            grams = [tuple(string[i : i + c.ngram]) for i in range(c.length - c.ngram + 1)]
            once = [i for i in range(c.length - c.ngram - c.answer + 1) if grams.count(grams[i]) == 1]
            if once:
                return string, once[int(g.integers(len(once)))]
        raise UsageError(
            f"strings of {c.length} symbols of {c.vocab} have hardly any {c.ngram}-gram that occurs once; raise ngram."
        )

    def answers(self, batch: Batch) -> Answers:
        """Searches text for text."""
        targets, weight = np.zeros_like(batch.inputs), np.zeros_like(batch.weight)
        for row, line in enumerate(batch.inputs.tolist()):
            parts = "".join(map(chr, line[1:])).split(chr(_CUE))
            gram, string = parts[:2] if self.config.form == "prefix" else (parts[1][: self.config.ngram], parts[0])
            assert len(string.split(gram)) == 2
            found = string.partition(gram)[2][: self.config.answer]
            targets[row, -len(found) :], weight[row, -len(found) :] = [ord(symbol) for symbol in found], 1
        return Answers(targets, weight)

    def time(self) -> int:
        """String, n-gram, separators, answer."""
        c = self.longest().config
        return c.length + c.ngram + c.answer + (2 if c.form == "prefix" else 1)

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Longer strings."""
        return {"length": (20, 40, 80, 160)}

    def chance(self) -> float:
        """Of all symbols."""
        return 1 / self.config.vocab

    def group_values(self) -> dict[str, Sequence[int]]:
        """Places in the answer."""
        return {"index": range(self.config.answer)}


class InductionConfig(ProblemConfig):
    """Settings of induction."""

    name: Literal["induction"] = "induction"
    vocab: int = Field(default=16, ge=2, le=65536, description="symbols of the string")
    length: Span = Field(default=64, description="symbols of a row, the special one twice among them")


class Induction(Problem):
    """A random string with one special symbol in it, which comes again at the end: asked for is what followed it the
    first time (Olsson et al. 2022, arXiv:2209.11895; as a problem Fu et al. 2022, arXiv:2212.14052). Group
    ``distance``: symbols between the two.
    """

    Config = InductionConfig
    EXAMPLES = (InductionConfig(vocab=5, length=8), InductionConfig(length=(3, 6)))

    def check(self) -> None:
        """See :meth:`Problem.check`."""
        if self.shortest().config.length < 3:
            raise UsageError("induction needs rows of 3 symbols at least; raise length.")

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start, the special one, and the others."""
        return (">", "!", *(f"s{i}" for i in range(self.config.vocab)))

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        time, each = self.config.length + 1, np.arange(rows)
        inputs = 2 + g.integers(0, self.config.vocab, (rows, time))
        first = g.integers(1, time - 2, rows)
        inputs[:, 0], inputs[:, -1], inputs[each, first] = 0, _CUE, _CUE
        targets, weight, distance = np.zeros_like(inputs), np.zeros(inputs.shape, np.float32), np.full(inputs.shape, -1)
        targets[:, -1], weight[:, -1], distance[:, -1] = inputs[each, first + 1], 1, time - 1 - first
        return Batch(inputs, targets, weight, {"distance": distance})

    def answers(self, batch: Batch) -> Answers:
        """Finds the special symbol."""
        targets, weight = np.zeros_like(batch.inputs), np.zeros_like(batch.weight)
        for row, line in enumerate(batch.inputs.tolist()):
            assert line.count(_CUE) == 2
            targets[row, len(line) - 1 - line[::-1].index(_CUE)] = line[line.index(_CUE) + 1]
            weight[row, len(line) - 1 - line[::-1].index(_CUE)] = 1
        return Answers(targets, weight)

    def time(self) -> int:
        """The start symbol and ``length`` symbols."""
        return self.longest().config.length + 1

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Longer rows."""
        return {"length": (64, 128, 256, 512)}

    def chance(self) -> float:
        """Of all symbols."""
        return 1 / self.config.vocab

    def group_values(self) -> dict[str, Sequence[int]]:
        """From the neighbour of the neighbour to the whole row."""
        return {"distance": range(2, self.longest().config.length)}
