"""Word problems of finite groups."""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations
from math import factorial
from typing import Any, Literal

import numpy as np
from pydantic import Field

from unrolled.core.errors import UsageError
from unrolled.data.made.base import Answers, Batch, Problem, ProblemConfig, Span

__all__ = ["Group", "GroupConfig"]

_KIND = re.compile(r"([ZSA])([1-9]\d{0,3})")
_LARGEST = 1000
_BLOCK = 16


class GroupConfig(ProblemConfig):
    """Settings of a word problem."""

    name: Literal["group"] = "group"
    kind: str = Field(
        default="S5",
        description="Z2 (parity), Z5 and other cyclic groups, S3, S5 (all permutations), A4, A5 (even ones)",
    )
    length: Span = Field(default=32, description="symbols of a row")
    generators: Literal["few", "all"] = Field(
        default="all",
        description="which elements are read: all; or few that generate the group: 0, 1 and -1 in a cyclic one, the "
        "swap of the first two and the rotation of S_n, the rotations of three of A_n",
    )


class Group(Problem):
    r"""The product of all elements read so far is due at each (Liu et al. 2022, arXiv:2210.10749; Merrill et al. 2024,
    arXiv:2404.08819): parity is Z2, a walk on a cycle Z_n; S5 and A5 cannot be solved by any fixed number of parallel
    steps unless TC0 = NC1.

    .. math::
        p_t = p_{t-1} g_t, \qquad (p g)(i) = p(g(i))

    Elements are numbered in the order of their permutations, 0 is the neutral one. Group ``position``: number of the
    symbol over 16, rounded down.
    """

    Config = GroupConfig
    EXAMPLES = (
        GroupConfig(kind="Z2", length=(1, 20)),
        GroupConfig(kind="Z5", length=18, generators="few"),
        GroupConfig(kind="S3", length=6),
        GroupConfig(kind="A4", length=5, generators="few"),
    )

    def check(self) -> None:
        """See :meth:`Problem.check`."""
        if not (found := _KIND.fullmatch(self.config.kind)):
            raise UsageError(f"there is no group {self.config.kind[:20]!r} here; give Z2, S5, A5 or the like.")
        letter, n = found[1], int(found[2])
        if letter != "Z" and n > 8:
            raise UsageError(f"{self.config.kind} has more than {_LARGEST:,} elements; take a smaller group.")
        order = n if letter == "Z" else factorial(n) // (2 if letter == "A" else 1)
        if not 2 <= order <= _LARGEST:
            raise UsageError(f"{self.config.kind} has {order:,} elements, and 2 to {_LARGEST:,} are possible.")

    @property
    def _n(self) -> int:
        return int(self.config.kind[1:])

    @property
    def read(self) -> list[int]:
        """The elements that are read."""
        kind, n, elements = self.config.kind[0], self._n, _elements(self.config.kind)
        if self.config.generators == "all":
            return list(range(len(elements)))
        if kind == "Z":
            return sorted({0, 1, n - 1})
        if kind == "S":
            few = [(1, 0, *range(2, n)), (*range(1, n), 0)]
        else:
            few = [tuple({0: 1, 1: i, i: 0}.get(j, j) for j in range(n)) for i in range(2, n)]
        return sorted({elements.index(one) for one in few})

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start and the elements: numbers in cyclic groups, else the images of 0, 1, ..."""
        if self.config.kind[0] == "Z":
            return (">", *map(str, range(self._n)))
        return (">", *("".join(map(str, one)) for one in _elements(self.config.kind)))

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        word = np.array(self.read)[g.integers(0, len(self.read), (rows, self.config.length))]
        inputs = np.concatenate([np.zeros((rows, 1), np.int64), 1 + word], 1)
        targets, weight = np.zeros_like(inputs), np.zeros(inputs.shape, np.float32)
        product, table = np.zeros(rows, np.int64), _products(self.config.kind)
        for place in range(self.config.length):
            product = table[product, word[:, place]]
            targets[:, place + 1] = 1 + product
        weight[:, 1:] = 1
        position = np.tile(np.arange(-1, self.config.length) // _BLOCK, (rows, 1))
        return Batch(inputs, targets, weight, {"position": position})

    def answers(self, batch: Batch) -> Answers:
        """Adds numbers, or moves the things that are permuted."""
        targets, weight = np.zeros_like(batch.inputs), np.zeros_like(batch.weight)
        for row, line in enumerate(batch.inputs.tolist()):
            things, total = list(range(self._n)), 0
            for place, symbol in enumerate(line[1:], 1):
                if self.config.kind[0] == "Z":
                    total = (total + int(self.symbols[symbol])) % self._n
                    name = str(total)
                else:
                    things = [things[int(i)] for i in self.symbols[symbol]]
                    name = "".join(map(str, things))
                targets[row, place], weight[row, place] = self.symbols.index(name), 1
        return Answers(targets, weight)

    def time(self) -> int:
        """The start symbol and the word."""
        return self.longest().config.length + 1

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Longer words."""
        return {"length": (32, 64, 128, 320)}

    def chance(self) -> float:
        """Of all elements."""
        return 1 / len(_elements(self.config.kind))

    def group_values(self) -> dict[str, Sequence[int]]:
        """Sixteens of the word."""
        return {"position": range((self.longest().config.length - 1) // _BLOCK + 1)}


def _even(permutation: tuple[int, ...]) -> bool:
    n = len(permutation)
    return sum(permutation[i] > permutation[j] for i in range(n) for j in range(i + 1, n)) % 2 == 0


@lru_cache(maxsize=32)
def _elements(kind: str) -> list[tuple[int, ...]]:
    """The permutations that the elements are, in order."""
    n = int(kind[1:])
    if kind[0] == "Z":
        return [tuple((i + shift) % n for i in range(n)) for shift in range(n)]
    found = list(permutations(range(n)))
    return found if kind[0] == "S" else [one for one in found if _even(one)]


@lru_cache(maxsize=32)
def _products(kind: str) -> np.ndarray:
    """(order, order): number of the product of two elements."""
    if kind[0] == "Z":
        n = int(kind[1:])
        return (np.arange(n)[:, None] + np.arange(n)) % n
    found = np.array(_elements(kind))
    # a permutation read as digits names it
    digits = found.shape[1] ** np.arange(found.shape[1])[::-1]
    return np.searchsorted(found @ digits, np.array([p[found] @ digits for p in found]))
