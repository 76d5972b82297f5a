"""A small problem, and problems that are broken on purpose; each must fail the check that it is for."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from conformance.made.checks import (
    answers_by_another_road,
    batches_by_number,
    groups_are_all_there,
    lengths_as_stated,
    probs_are_a_distribution,
    splits_share_nothing,
    symbols_in_range,
)
from unrolled.data.made import Answers, Batch, Problem, ProblemConfig, Span
from unrolled.data.made.base import shifted

__all__ = ["BROKEN", "Plain", "PlainConfig"]


class PlainConfig(ProblemConfig):
    name: Literal["plain"] = "plain"
    length: Span = Field(default=40, description="symbols of a row")


class Plain(Problem):
    """Coins of which one side comes twice as often as the other."""

    Config = PlainConfig
    EXAMPLES = (PlainConfig(),)
    fed = True
    names: tuple[str, ...] = (">", "heads", "tails")
    law = (0.0, 2 / 3, 1 / 3)

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.names

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        inputs, targets = shifted(1 + (g.random((rows, self.config.length)) < 1 / 3).astype(np.int64))
        position = np.tile(np.arange(self.config.length), (rows, 1))
        probs = np.tile(np.array(self.law), (*inputs.shape, 1))
        return Batch(inputs, targets, np.ones(inputs.shape, np.float32), {"position": position}, probs)

    def answers(self, batch: Batch) -> Answers:
        return Answers(batch.targets, np.ones_like(batch.weight), np.tile(np.array(self.law), (*batch.inputs.shape, 1)))

    def time(self) -> int:
        return self.longest().config.length

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        return {"length": (5, 9)}

    def chance(self) -> float:
        return 0.5

    def group_values(self) -> dict[str, Sequence[int]]:
        return {"position": range(self.config.length)}


class Unasked(Plain):
    """The other road asks for less."""

    def answers(self, batch: Batch) -> Answers:
        found = super().answers(batch)
        found.weight[3, -1] = 0
        return found


class Wrong(Plain):
    """The other road finds other chances."""

    def answers(self, batch: Batch) -> Answers:
        found = super().answers(batch)
        return Answers(found.targets, found.weight, np.full_like(batch.probs, 1 / 3))


class Counting(Plain):
    """Rows depend on how many were drawn before."""

    drawn = 0

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        Counting.drawn += 1
        batch = super().draw(g, rows)
        return batch._replace(inputs=np.roll(batch.inputs, Counting.drawn, 0))


class Global(Plain):
    """Draws from numpy's global generator."""

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        return super().draw(np.random.default_rng(np.random.randint(1 << 30)), rows)


class Outside(Plain):
    """One id has no name."""

    names = (">", "heads")


class Blank(Plain):
    """A name that the tokenizer would cut."""

    names = (">", "heads up", "tails")


class NotFed(Plain):
    """The answers are not the inputs that follow."""

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        batch = super().draw(g, rows)
        return batch._replace(targets=3 - batch.targets)


class Startless(Plain):
    """Rows begin with their first symbol."""

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        batch = super().draw(g, rows)
        return batch._replace(inputs=batch.targets)


class Grouped(Plain):
    """A group that is said to have more values."""

    def group_values(self) -> dict[str, Sequence[int]]:
        return {"position": range(self.config.length + 1)}


class Short(Plain):
    """Rows are longer than they are said to be."""

    def time(self) -> int:
        return super().time() - 1


class Half(Plain):
    """Chances that do not sum to 1."""

    law = (0.0, 0.5, 0.4)


class Impossible(Plain):
    """What is drawn has no chance."""

    law = (0.0, 1.0, 0.0)


class Sure(Plain):
    """Draws do not follow the stated chances."""

    law = (0.0, 0.8, 0.2)


class Leaking(Plain):
    """Validation has training's rows."""

    def batch(self, streams: Any, split: str, number: int, rows: int, apart: bool = False, **point: Any) -> Batch:
        return super().batch(streams, "train", number, rows, apart, **point)


BROKEN = (
    (Unasked, answers_by_another_road),
    (Wrong, answers_by_another_road),
    (Counting, batches_by_number),
    (Global, batches_by_number),
    (Leaking, batches_by_number),
    (Outside, symbols_in_range),
    (Blank, symbols_in_range),
    (NotFed, symbols_in_range),
    (Startless, symbols_in_range),
    (Grouped, groups_are_all_there),
    (Short, lengths_as_stated),
    (Half, probs_are_a_distribution),
    (Impossible, probs_are_a_distribution),
    (Sure, probs_are_a_distribution),
    (Leaking, splits_share_nothing),
)
