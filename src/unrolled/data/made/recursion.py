"""Problems that recursion solves: the binary successor, and walks of trees."""

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from unrolled.core.errors import UsageError
from unrolled.data.made.base import Answers, Batch, Problem, ProblemConfig, Span, shifted

__all__ = ["Recursion", "RecursionConfig"]

_CUE, _MOST_TRIES = 1, 10_000


class RecursionConfig(ProblemConfig):
    """Settings of recursive problems."""

    name: Literal["recursion"] = "recursion"
    task: Literal["successor", "preorder", "inorder", "postorder"] = Field(
        default="successor", description="the number that follows, or the labels of a tree in an order of visits"
    )
    length: Span = Field(default=10, description="bits of the number, or nodes of the tree")
    labels: int = Field(default=8, ge=1, le=4096, description="labels that nodes may have")
    depth: tuple[int, int] | None = Field(
        default=None, description="only rows of depths in this range, both ends included (absent: all)"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.depth is not None and not 0 <= self.depth[0] <= self.depth[1]:
            raise ValueError("depth is a range [low, high] from 0 on")
        return self


class Recursion(Problem):
    """What recursive functions compute, with the depth of their recursion known (Zhang et al. 2024, arXiv:2401.12947):
    the binary successor, highest bit first, whose depth is the number of ones at the end and one; and the visits of a
    binary tree, which is read as ``( label left right )`` with a point for what is absent and whose depth is its
    height.

    Depths of the successor are drawn evenly, those of a tree are its shape's, which has a random number of nodes on the
    left of each. ``depth`` holds depths out of training, and asks for them at a point. The answer is read while it is
    written. A number of ones alone is left out, since its successor is longer. Group ``depth``.
    """

    Config = RecursionConfig
    EXAMPLES = (
        RecursionConfig(length=(5, 7)),
        RecursionConfig(length=8, depth=(2, 4)),
        RecursionConfig(task="preorder", length=5, depth=(1, 4)),
        RecursionConfig(task="inorder", length=(4, 6), labels=3),
        RecursionConfig(task="postorder", length=4),
    )
    fed = True
    fixed = ("task",)

    def check(self) -> None:
        """See :meth:`Problem.check`."""
        for one in (self.shortest(), self.longest()):
            if not one._depths():
                raise UsageError(
                    f"recursion has no row of {one.config.length} with such a depth; change depth or length."
                )

    def _depths(self) -> list[int]:
        """The depths that there are."""
        c = self.config
        low, high = (1, c.length) if c.task == "successor" else (c.length.bit_length(), c.length)
        given = c.depth or (low, high)
        return list(range(max(low, given[0]), min(high, given[1]) + 1))

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start, cue, and bits; or brackets, the point for an absent child, labels."""
        if self.config.task == "successor":
            return (">", "=", "0", "1")
        return (">", "=", "(", ")", ".", *(f"a{i}" for i in range(self.config.labels)))

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        make = self._number if self.config.task == "successor" else self._tree
        made = [make(g) for _ in range(rows)]
        inputs, targets = shifted(np.array([[*read, _CUE, *answer] for read, answer, _ in made]))
        asked = np.arange(inputs.shape[1]) > len(made[0][0])
        depth = np.where(asked, np.array([[one] for _, _, one in made]), -1)
        return Batch(inputs, targets, np.tile(asked.astype(np.float32), (rows, 1)), {"depth": depth})

    def _number(self, g: np.random.Generator) -> tuple[list[int], list[int], int]:
        depths, length = self._depths(), self.config.length
        depth = depths[int(g.integers(len(depths)))]
        high = g.integers(0, 2, length - depth).tolist()
        read = [2 + bit for bit in (*high, 0, *[1] * (depth - 1))]
        return read, [2 + bit for bit in (*high, 1, *[0] * (depth - 1))], depth

    def _tree(self, g: np.random.Generator) -> tuple[list[int], list[int], int]:
        wanted = set(self._depths())
        for _ in range(_MOST_TRIES):
            read, answer, depth = self._grown(g, self.config.length)
            if depth in wanted:
                return read, answer, depth
        raise UsageError(f"trees of {self.config.length} nodes hardly ever have such a depth; change depth or length.")

    def _grown(self, g: np.random.Generator, nodes: int) -> tuple[list[int], list[int], int]:
        """What is read, the labels in order, and the height."""
        if not nodes:
            return [4], [], 0
        label, on_left = 5 + int(g.integers(self.config.labels)), int(g.integers(nodes))
        left, right = self._grown(g, on_left), self._grown(g, nodes - 1 - on_left)
        visits = {
            "preorder": [label, *left[1], *right[1]],
            "inorder": [*left[1], label, *right[1]],
            "postorder": [*left[1], *right[1], label],
        }
        return [2, label, *left[0], *right[0], 3], visits[self.config.task], 1 + max(left[2], right[2])

    def answers(self, batch: Batch) -> Answers:
        """Adds one to the number; parses the brackets with a stack."""
        targets, weight = np.zeros_like(batch.inputs), np.zeros_like(batch.weight)
        for row, line in enumerate(batch.inputs.tolist()):
            cue = line.index(_CUE)
            names = [self.symbols[symbol] for symbol in line[1:cue]]
            if self.config.task == "successor":
                answer = list(bin(int("".join(names), 2) + 1)[2:].rjust(len(names), "0"))
            else:
                answer = _walk(_parsed(names), self.config.task)
            targets[row, cue:], weight[row, cue:] = [self.symbols.index(name) for name in answer], 1
        return Answers(targets, weight)

    def time(self) -> int:
        """The number, cue and its successor; or the tree (three symbols a node, one a child that is absent) and
        labels."""
        c = self.longest().config
        read = c.length if c.task == "successor" else 4 * c.length + 1
        return read + 1 + c.length

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Larger ones."""
        return {"length": (10, 20, 40)} if self.config.depth is None else {}

    def chance(self) -> float:
        """Of the bits, or of the labels."""
        return 0.5 if self.config.task == "successor" else 1 / self.config.labels

    def group_values(self) -> dict[str, Sequence[int]]:
        """All that there are."""
        return {"depth": sorted({*self.shortest()._depths(), *self.longest()._depths()})}


def _parsed(names: list[str]) -> Any:
    """(label, left, right), or None for a point."""
    stack: list[list[Any]] = [[]]
    for name in names:
        if name == "(":
            stack.append([])
        elif name == ")":
            node = tuple(stack.pop())
            stack[-1].append(node)
        else:
            stack[-1].append(None if name == "." else name)
    return stack[0][0]


def _walk(tree: Any, order: str) -> list[str]:
    if tree is None:
        return []
    label, left, right = tree
    first, second = _walk(left, order), _walk(right, order)
    at = {"preorder": 0, "inorder": len(first), "postorder": len(first) + len(second)}[order]
    both = first + second
    return [*both[:at], label, *both[at:]]
