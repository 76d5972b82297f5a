"""The fifteen tasks of the Chomsky hierarchy."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from pydantic import Field

from unrolled.data.made import arithmetic
from unrolled.data.made.base import Answers, Batch, Problem, ProblemConfig, Span

__all__ = ["Chomsky", "ChomskyConfig", "Text"]

Text = list[str]
_MODULUS, _SORTED = 5, 5
_BITS, _DIGITS = ("0", "1"), tuple(map(str, range(_MODULUS)))
_OPERATORS = ("+", "-", "*")


def _string(g: np.random.Generator, letters: tuple[str, ...], length: int) -> Text:
    return [letters[i] for i in g.integers(0, len(letters), length)]


def _even_pairs(g: np.random.Generator, length: int) -> tuple[Text, Text]:
    x = np.array(_string(g, _BITS, length))
    return x.tolist(), [str(int((x[1:] != x[:-1]).sum() % 2 == 0))]


def _parity(g: np.random.Generator, length: int) -> tuple[Text, Text]:
    x = g.integers(0, 2, length)
    return [str(one) for one in x], [str(int(x.sum() % 2))]


def _cycle(g: np.random.Generator, length: int) -> tuple[Text, Text]:
    x = g.integers(0, 3, length)
    return [("stay", "up", "down")[one] for one in x], [str(int((x == 1).sum() - (x == 2).sum()) % _MODULUS)]


def _stack(g: np.random.Generator, length: int) -> tuple[Text, Text]:
    held = int(g.integers(1, length + 1))
    stack = _string(g, _BITS, held)
    x = list(stack)
    for move in g.integers(0, 3, length - held):
        x.append(("pop", "push0", "push1")[move])
        if move:
            stack.append(str(move - 1))
        elif stack:
            stack.pop()
    return x, [*stack[::-1], *["end"] * (length + 1 - len(stack))]


def _reverse(g: np.random.Generator, length: int) -> tuple[Text, Text]:
    x = _string(g, _BITS, length)
    return x, x[::-1]


def _duplicate(g: np.random.Generator, length: int) -> tuple[Text, Text]:
    x = _string(g, _BITS, length)
    return x, x + x


def _missing(g: np.random.Generator, length: int) -> tuple[Text, Text]:
    x = 2 * _string(g, _BITS, (length + 1) // 2)
    place = int(g.integers(len(x)))
    lost, x[place] = x[place], "lost"
    return x, [lost]


def _odds_first(g: np.random.Generator, length: int) -> tuple[Text, Text]:
    x = np.array(_string(g, _BITS, length))
    return x.tolist(), np.concatenate([x[::2], x[1::2]]).tolist()


def _sort(g: np.random.Generator, length: int) -> tuple[Text, Text]:
    x = g.integers(0, _SORTED, length)
    return [str(one) for one in x], [str(one) for one in np.sort(x)]


def _padded(value: int, length: int) -> Text:
    """A number in bits, the lowest first, and end symbols."""
    bits = list(bin(value)[:1:-1])
    return [*bits, *["end"] * (length - len(bits))]


def _two_numbers(g: np.random.Generator, length: int, sign: str) -> tuple[Text, int, int]:
    cut = int(g.integers(1, max(length - 1, 2)))
    sizes = (cut, max(length - 1 - cut, 1))
    first, second = (_string(g, _BITS, size) for size in sizes)
    return [*first, sign, *second], int("".join(first[::-1]), 2), int("".join(second[::-1]), 2)


def _addition(g: np.random.Generator, length: int) -> tuple[Text, Text]:
    x, first, second = _two_numbers(g, length, "+")
    return x, _padded(first + second, len(x) + 1)


def _multiplication(g: np.random.Generator, length: int) -> tuple[Text, Text]:
    x, first, second = _two_numbers(g, length, "*")
    return x, _padded(first * second, len(x) + 1)


def _sqrt(g: np.random.Generator, length: int) -> tuple[Text, Text]:
    x = ["1", *_string(g, _BITS, length - 1)]
    value, root = int("".join(x), 2), 0
    for bit in reversed(range((length + 1) // 2)):
        if (root + (1 << bit)) ** 2 <= value:
            root += 1 << bit
    return x, list(bin(root)[2:])


Maker = Callable[[np.random.Generator, int], tuple[Text, Text]]
# name -> (maker, symbols read, symbols answered)
_TASKS: dict[str, tuple[Maker, tuple[str, ...], tuple[str, ...]]] = {
    "even_pairs": (_even_pairs, _BITS, _BITS),
    "modular_arithmetic": (arithmetic.chain, (*_DIGITS, *_OPERATORS), _DIGITS),
    "parity": (_parity, _BITS, _BITS),
    "cycle": (_cycle, ("stay", "up", "down"), _DIGITS),
    "stack_manipulation": (_stack, (*_BITS, "pop", "push0", "push1"), (*_BITS, "end")),
    "reverse": (_reverse, _BITS, _BITS),
    "modular_arithmetic_brackets": (arithmetic.nested, (*_DIGITS, *_OPERATORS, "(", ")"), _DIGITS),
    "solve_equation": (arithmetic.equation, (*_DIGITS, "+", "-", "(", ")", "x", "is"), _DIGITS),
    "duplicate": (_duplicate, _BITS, _BITS),
    "missing_duplicate": (_missing, (*_BITS, "lost"), _BITS),
    "odds_first": (_odds_first, _BITS, _BITS),
    "bucket_sort": (_sort, _DIGITS, _DIGITS),
    "addition": (_addition, (*_BITS, "+"), (*_BITS, "end")),
    "multiplication": (_multiplication, (*_BITS, "*"), (*_BITS, "end")),
    "sqrt": (_sqrt, _BITS, _BITS),
}


class ChomskyConfig(ProblemConfig):
    """Settings of the tasks of the Chomsky hierarchy."""

    name: Literal["chomsky"] = "chomsky"
    task: Literal[
        "even_pairs", "modular_arithmetic", "parity", "cycle", "stack_manipulation", "reverse",
        "modular_arithmetic_brackets", "solve_equation", "duplicate", "missing_duplicate", "odds_first", "bucket_sort",
        "addition", "multiplication", "sqrt",
    ] = Field(default="parity", description="which of the fifteen")  # fmt: skip
    length: Span = Field(
        default=(1, 40), description="symbols of the string that is read, where the task has such strings"
    )


class Chomsky(Problem):
    """Regular, context-free and context-sensitive tasks (Delétang et al. 2022, arXiv:2207.02098): a string is read,
    then the cue, at which the answer begins; blanks are read while it goes on.

    Regular: ``even_pairs`` (1 where the pairs 01 and 10 are even in number), ``modular_arithmetic`` (modulo 5, products
    first; even lengths begin with a minus), ``parity`` of the ones, ``cycle`` (place on a circle of 5). Context-free:
    ``stack_manipulation`` (a stack from its bottom, then moves; the stack from its top is due, and end symbols),
    ``reverse``, ``modular_arithmetic_brackets``, ``solve_equation`` for x modulo 5. Context-sensitive: ``duplicate``,
    ``missing_duplicate`` (of a doubled string one symbol is lost), ``odds_first`` (symbols 1, 3, ..., then 2, 4, ...),
    ``bucket_sort``, ``addition`` and ``multiplication`` of two numbers, lowest bits first, and end symbols; ``sqrt`` of
    a number, rounded down, highest bits first. Doubled strings have even lengths, two numbers and their sign at least 3
    symbols, an equation at least 5. The group ``index`` is the place in the answer.
    """

    Config = ChomskyConfig
    EXAMPLES = tuple(
        ChomskyConfig.model_validate({"task": task, "length": length})
        for task, length in zip(_TASKS, 4 * (9, (14, 18), 16, (12, 13)), strict=False)
    )
    fixed = ("task",)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start, cue, blank, and those of the task."""
        _, read, answered = _TASKS[self.config.task]
        return (">", "=", "_", *dict.fromkeys((*read, *answered)))

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        make, number = _TASKS[self.config.task][0], {name: i for i, name in enumerate(self.symbols)}
        made = [make(g, self.config.length) for _ in range(rows)]
        read = np.array([[number[name] for name in x] for x, _ in made])
        answer = np.array([[number[name] for name in y] for _, y in made])
        inputs = np.full((rows, 1 + read.shape[1] + answer.shape[1]), 2)
        begin = 1 + read.shape[1]
        inputs[:, 0], inputs[:, 1:begin], inputs[:, begin] = 0, read, 1
        targets, weight, index = np.zeros_like(inputs), np.zeros(inputs.shape, np.float32), np.full(inputs.shape, -1)
        targets[:, begin:], weight[:, begin:], index[:, begin:] = answer, 1, np.arange(answer.shape[1])
        return Batch(inputs, targets, weight, {"index": index})

    def answers(self, batch: Batch) -> Answers:
        """Solves the string anew."""
        from unrolled.data.made.chomsky_answers import SOLVERS

        targets, weight = np.zeros_like(batch.inputs), np.zeros_like(batch.weight)
        for row, line in enumerate(batch.inputs.tolist()):
            cue = line.index(1)
            answer = SOLVERS[self.config.task]([self.symbols[symbol] for symbol in line[1:cue]])
            targets[row, cue:] = [self.symbols.index(name) for name in answer]
            weight[row, cue:] = 1
        return Answers(targets, weight)

    def time(self) -> int:
        """Start, string, cue and answer: as one row shows."""
        x, y = _TASKS[self.config.task][0](np.random.default_rng(0), self.longest().config.length)
        return 1 + len(x) + len(y)

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Beyond the lengths of training."""
        return {"length": (40, 100, 200, 500)}

    def chance(self) -> float:
        """Of the symbols that an answer may have."""
        return 1 / len(_TASKS[self.config.task][2])
