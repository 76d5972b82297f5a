"""Languages that a counter recognises."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from unrolled.data.made.base import Answers, Batch, Problem, ProblemConfig, Span, shifted

__all__ = ["Counter", "CounterConfig"]

_END, _A, _OPERATOR = 1, 2, 0.4


class CounterConfig(ProblemConfig):
    """Settings of counter languages."""

    name: Literal["counter"] = "counter"
    language: Literal["anbn", "anbncn", "boolean"] = Field(
        default="anbn", description="a^n b^n, a^n b^n c^n, or Boolean expressions, operators before their arguments"
    )
    limit: int = Field(
        default=16, ge=1, le=1 << 16, description="largest n; of Boolean expressions: arguments that may be due at once"
    )
    arity: int = Field(default=3, ge=1, le=9, description="arguments of the largest operator, one of each number below")
    length: Span = Field(default=64, description="symbols of a row")


class Counter(Problem):
    """Words of a counter language after each other, an end symbol behind each (Bhattamishra et al. 2020,
    arXiv:2009.11264).

    n is uniform from 1 to ``limit``, so that after j letters a the next one is b with probability 1 / (limit - j + 1),
    and all else follows. Of a Boolean expression the next symbol is an operator with probability 0.4, if its arguments
    can still be due, or else a value; operators of 1 to ``arity`` arguments and both values are equally likely. Group
    ``n``: letters a so far; arguments that are due.
    """

    Config = CounterConfig
    EXAMPLES = (
        CounterConfig(limit=4, length=30),
        CounterConfig(language="anbncn", limit=3, length=(20, 30)),
        CounterConfig(language="boolean", limit=5, length=24, arity=2),
    )
    fed = True
    fixed = ("language",)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start, end of a word, and letters; or values and operators, which are named by their numbers of arguments."""
        if self.config.language == "boolean":
            return (">", ".", "0", "1", *(f"op{i}" for i in range(1, self.config.arity + 1)))
        return (">", ".", *("ab" if self.config.language == "anbn" else "abc"))

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        make = self._expression if self.config.language == "boolean" else self._letters
        made = [make(g) for _ in range(rows)]
        text, probs, n = (np.array([row[i] for row in made]) for i in range(3))
        inputs, targets = shifted(text)
        return Batch(inputs, targets, np.ones(inputs.shape, np.float32), {"n": n}, probs)

    def _letters(self, g: np.random.Generator) -> tuple[list[int], np.ndarray, list[int]]:
        """Whole words, cut at the end of the row, with the law of each symbol."""
        c, kinds = self.config, len(self.symbols) - 2
        text: list[int] = []
        counts: list[int] = []
        probs = np.zeros((c.length, len(self.symbols)))
        while len(text) < c.length:
            n = int(g.integers(1, c.limit + 1))
            for j in range(n):
                if len(text) + j < c.length and j:
                    probs[len(text) + j, [_A, _A + 1]] = 1 - 1 / (c.limit - j + 1), 1 / (c.limit - j + 1)
            if len(text) < c.length:
                probs[len(text), _A] = 1
            if len(text) + n < c.length:
                probs[len(text) + n, [_A, _A + 1]] = 1 - 1 / (c.limit - n + 1), 1 / (c.limit - n + 1)
            word = [_A + kind for kind in range(kinds) for _ in range(n)] + [_END]
            for j in range(n + 1, min(len(word), c.length - len(text))):
                probs[len(text) + j, word[j]] = 1
            counts += [min(j, n) for j in range(len(word))]
            text += word
        return text[: c.length], probs, counts[: c.length]

    def _expression(self, g: np.random.Generator) -> tuple[list[int], np.ndarray, list[int]]:
        """Symbol by symbol, with a counter of the arguments that are due."""
        c, due, text, counts = self.config, 1, [], []
        probs = np.zeros((c.length, len(self.symbols)))
        for place, u in enumerate(g.random(c.length).tolist()):
            law = probs[place]
            if due == 0:
                law[_END] = 1
            else:
                most = min(c.arity, c.limit - due + 1)
                law[4 : 4 + max(most, 0)] = _OPERATOR / max(most, 1)
                law[2:4] = (1 - _OPERATOR * (most > 0)) / 2
            sums = law.cumsum()
            symbol = int((u * sums[-1] >= sums).sum())
            counts.append(due)
            text.append(symbol)
            due = 1 if symbol == _END else due + (symbol - 4 if symbol >= 4 else -1)
        return text, probs, counts

    def answers(self, batch: Batch) -> Answers:
        """Reads each word from its beginning."""
        probs = np.zeros_like(batch.probs)
        law = self._law_of_expression if self.config.language == "boolean" else self._law_of_letters
        for row, line in enumerate(batch.inputs.tolist()):
            word: list[str] = []
            for place, symbol in enumerate(line):
                word = [] if symbol in (self.start_id, _END) else [*word, self.symbols[symbol]]
                for name, value in law(word).items():
                    probs[row, place, self.symbols.index(name)] = value
        return Answers(batch.targets, np.ones_like(batch.weight), probs)

    def _law_of_letters(self, word: list[str]) -> dict[str, float]:
        n, last = word.count("a"), self.symbols[-1]
        if not word:
            return {"a": 1.0}
        if word[-1] == "a":  # of the numbers from n on, all equally likely, one is n
            left = self.config.limit - n + 1
            return {"a": (left - 1) / left, "b": 1 / left}
        if word.count(word[-1]) < n:
            return {word[-1]: 1.0}
        return {"." if word[-1] == last else "c": 1.0}

    def _law_of_expression(self, word: list[str]) -> dict[str, float]:
        stack = [1]
        for name in word:
            stack[-1] -= 1
            if name.startswith("op"):
                stack.append(int(name[2:]))
        due = sum(stack)
        if not due:
            return {".": 1.0}
        operators = [i for i in range(1, self.config.arity + 1) if due - 1 + i <= self.config.limit]
        rest = (1 - _OPERATOR if operators else 1.0) / 2
        return {"0": rest, "1": rest, **{f"op{i}": _OPERATOR / len(operators) for i in operators}}

    def time(self) -> int:
        """``length`` symbols, from the first one on."""
        return self.longest().config.length

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Longer rows, larger numbers."""
        return {"length": (64, 256, 1024), "limit": (16, 32, 64)}

    def chance(self) -> float:
        """Of all symbols but the start."""
        return 1 / (len(self.symbols) - 1)

    def group_values(self) -> dict[str, Sequence[int]]:
        """From nothing to the limit."""
        return {"n": range(self.config.limit + 1)}
