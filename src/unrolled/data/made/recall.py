"""Associative recall in a stream of pairs."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from unrolled.core.errors import UsageError
from unrolled.data.made.base import Answers, Batch, Problem, ProblemConfig, Span

__all__ = ["Recall", "RecallConfig"]

_BLANK = 1
_MOST_SEEN = 4


class RecallConfig(ProblemConfig):
    """Settings of associative recall in a stream."""

    name: Literal["recall"] = "recall"
    vocab: int = Field(default=16, ge=4, le=4096, multiple_of=2, description="symbols: half for keys, half for values")
    length: Span = Field(default=128, description="symbols of a row")
    noise: float = Field(default=0.0, ge=0, lt=1, description="share of the pairs that are replaced by noise symbols")
    motif: int = Field(default=1, ge=1, le=8, description="keys and values have 1 to so many symbols")
    single: bool = Field(default=False, description="ask for the last known key of a row alone")


class Recall(Problem):
    """A stream of pairs of a key and its value; where a key comes again, its value is due (Poli et al. 2024,
    arXiv:2403.17844: in-context recall, with noise, and fuzzy with motifs).

    Every row has a book of its own, with a value for each of vocab / 2 keys. With ``motif`` above 1 keys and values are
    strings of several symbols; no key of a row begins another one, so that it is known where a key ends. The published
    fuzzy form has keys that begin others, whose answers are ambiguous. Groups: ``gap``, symbols from where the pair was
    last shown; ``seen``, how often it was (4: or more often).
    """

    Config = RecallConfig
    EXAMPLES = (
        RecallConfig(vocab=6, length=24),
        RecallConfig(vocab=8, length=(30, 40), noise=0.2, single=True),
        RecallConfig(vocab=12, length=60, motif=2, noise=0.1),
    )
    fed = True

    def check(self) -> None:
        """See :meth:`Problem.check`."""
        if self.shortest().config.length < 4 * self.config.motif:
            raise UsageError(f"recall needs rows of {4 * self.config.motif} symbols, two pairs; raise length.")

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start, blank, those of keys, of values, and the noise's."""
        half = range(self.config.vocab // 2)
        noise = (f"n{i}" for i in half) if self.config.noise else ()
        return (">", "_", *(f"k{i}" for i in half), *(f"v{i}" for i in half), *noise)

    def _motifs(self, g: np.random.Generator, first: int, count: int) -> list[list[int]]:
        """Strings of 1 to ``motif`` symbols."""
        c = self.config
        sizes, symbols = g.integers(1, c.motif + 1, count), first + g.integers(0, c.vocab // 2, (count, c.motif))
        return [string[:size] for string, size in zip(symbols.tolist(), sizes.tolist(), strict=True)]

    def _book(self, g: np.random.Generator) -> list[tuple[list[int], list[int]]]:
        """Pairs of a key and its value; no key begins another."""
        half = self.config.vocab // 2
        keys: list[list[int]] = [[2 + key] for key in range(half)] if self.config.motif == 1 else []
        for new in self._motifs(g, 2, 8 * half) if self.config.motif > 1 else ():
            if len(keys) < half and not any(new[: len(key)] == key[: len(new)] for key in keys):
                keys.append(new)
        return list(zip(keys, self._motifs(g, 2 + half, len(keys)), strict=True))

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        made = [self._row(g) for _ in range(rows)]
        inputs, targets, weight, gap, seen = (np.array([row[part] for row in made]) for part in range(5))
        return Batch(inputs, targets, weight.astype(np.float32), {"gap": gap, "seen": seen})

    def _row(self, g: np.random.Generator) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
        """Inputs, targets, weight, gap and how often the pair was seen."""
        c, half, time = self.config, self.config.vocab // 2, self.config.length + 1
        inputs, targets, weight, gap, seen = [0], [0] * time, [0] * time, [-1] * time, [-1] * time
        book, pairs = self._book(g), time // 2
        # there are no more pairs than these
        places, noisy = g.integers(0, len(book), pairs).tolist(), (g.random(pairs) < c.noise).tolist()
        noise = (2 + 2 * half + g.integers(0, half, (pairs, 2))).tolist()
        known: dict[int, tuple[int, int]] = {}
        for place, is_noise, symbols in zip(places, noisy, noise, strict=True):
            key, value = book[place]
            at, size = len(inputs), 2 if is_noise else len(key) + len(value)
            if at + size > time:
                break
            if is_noise:
                inputs += symbols
                continue
            if place in known:
                before, times = known[place]
                weight = [0] * time if c.single else weight
                for index, symbol in enumerate(value, at + len(key) - 1):
                    targets[index], weight[index], gap[index], seen[index] = (
                        symbol,
                        1,
                        at - before,
                        min(times, _MOST_SEEN),
                    )
            known[place] = (at, known.get(place, (0, 0))[1] + 1)
            inputs += key + value
        return inputs + [_BLANK] * (time - len(inputs)), targets, weight, gap, seen

    def answers(self, batch: Batch) -> Answers:
        """Cuts a row into runs of key symbols and of others."""
        half = self.config.vocab // 2
        targets, weight = np.zeros_like(batch.inputs), np.zeros_like(batch.weight)
        for row, line in enumerate(batch.inputs.tolist()):
            book: dict[str, str] = {}
            last, place = None, 1
            while place < len(line) and line[place] != _BLANK:
                runs = []
                for low in (2, 2 + half):
                    end = place
                    while end < len(line) and low <= line[end] < low + half:
                        end += 1
                    runs.append(line[place:end])
                    place = end
                if not runs[0]:
                    place += 1
                    continue
                name, value = (" ".join(map(str, run)) for run in runs)
                if name in book:
                    assert book[name] == value
                    last = (place - len(runs[1]) - 1, runs[1])
                    targets[row, last[0] : place - 1], weight[row, last[0] : place - 1] = runs[1], 1
                book[name] = value
            if self.config.single and last is not None:
                weight[row] = 0
                weight[row, last[0] : last[0] + len(last[1])] = 1
        return Answers(targets, weight)

    def time(self) -> int:
        """The start symbol and ``length`` symbols."""
        return self.longest().config.length + 1

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Longer rows."""
        return {"length": (128, 256, 512, 1024)}

    def chance(self) -> float:
        """Of all symbols of values."""
        return 2 / self.config.vocab

    def group_values(self) -> dict[str, Sequence[int]]:
        """How often a pair was seen."""
        return {"seen": range(1, _MOST_SEEN + 1)}
