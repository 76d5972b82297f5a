"""The contract of a synthetic problem: rows with answers that are known, made by number."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
from pydantic import AfterValidator

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams

__all__ = ["Answers", "Batch", "Problem", "ProblemConfig", "Span", "shared_rows", "shifted"]

# Of rows that are kept apart by their hash: valid and test have one class of so many each, training all others.
_CLASSES, _SPLIT_OF = 10, {0: "valid", 1: "test"}
_MOST_TRIES = 200
LONGEST = 1 << 20
"""Symbols of a row, at most."""


def _ordered(value: int | tuple[int, int]) -> int | tuple[int, int]:
    low, high = value if isinstance(value, tuple) else (value, value)
    if not 1 <= low <= high <= LONGEST:
        raise ValueError(f"give a number from 1 to {LONGEST:,}, or a range [low, high] of such numbers")
    return value


Span = Annotated[int | tuple[int, int], AfterValidator(_ordered)]
"""A number, or a range [low, high], both included, of which each batch draws one number."""


class ProblemConfig(Config):
    """Base of the problems' configurations. A subclass fixes ``name`` to the problem's name in the table."""

    name: str


class Batch(NamedTuple):
    """Independent rows; V is the number of symbols.

    inputs, targets: (rows, time) int64; the first input of every row is the start symbol. weight: (rows, time) float32,
    0 where nothing is asked. groups: name -> (rows, time) int64, by which figures are told apart; -1 where a position
    belongs to none. probs: (rows, time, V) float64, the exact distribution of each target before it is drawn, given
    what a reader that knows the problem has read; None where targets follow from the inputs. hidden: name -> (rows,
    ...), what the rows were made from and no reader sees.
    """

    inputs: np.ndarray
    targets: np.ndarray
    weight: np.ndarray
    groups: dict[str, np.ndarray]
    probs: np.ndarray | None = None
    hidden: dict[str, np.ndarray] = {}

    def rows(self, places: Sequence[int]) -> "Batch":
        """Some of the rows."""
        cut = np.asarray(places, np.int64)
        groups = {name: value[cut] for name, value in self.groups.items()}
        hidden = {name: value[cut] for name, value in self.hidden.items()}
        probs = None if self.probs is None else self.probs[cut]
        return Batch(self.inputs[cut], self.targets[cut], self.weight[cut], groups, probs, hidden)

    @staticmethod
    def joined(parts: Sequence["Batch"]) -> "Batch":
        """The rows of several batches of one shape."""
        first = parts[0]
        inputs = np.concatenate([part.inputs for part in parts])
        targets = np.concatenate([part.targets for part in parts])
        weight = np.concatenate([part.weight for part in parts])
        groups = {name: np.concatenate([part.groups[name] for part in parts]) for name in first.groups}
        hidden = {name: np.concatenate([part.hidden[name] for part in parts]) for name in first.hidden}
        probs = [part.probs for part in parts if part.probs is not None]
        return Batch(inputs, targets, weight, groups, np.concatenate(probs) if probs else None, hidden)


class Answers(NamedTuple):
    """Targets, weight and probs of a batch, as in :class:`Batch`; targets matter where weight is above 0."""

    targets: np.ndarray
    weight: np.ndarray
    probs: np.ndarray | None = None


def shifted(text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (rows, time) of rows of text that are predicted symbol by symbol from the start symbol 0."""
    inputs = np.concatenate([np.zeros((len(text), 1), np.int64), text[:, :-1]], 1)
    return inputs, text.astype(np.int64)


class Problem(ABC):
    """A generator of rows.

    Args:
        config: its settings.
    Raises:
        UsageError: settings that no row can have, in one sentence.
    """

    Config: ClassVar[type[ProblemConfig]]
    EXAMPLES: ClassVar[tuple[ProblemConfig, ...]]
    fed: ClassVar[bool] = False
    """Whether an answer is the next input, so that a model can run on its own answers."""
    fixed: ClassVar[tuple[str, ...]] = ()
    """Settings that a model learns by heart, so that no other value can be measured."""
    start_id: ClassVar[int] = 0
    """The symbol that every row begins with."""

    def __init__(self, config: Any):
        self.config = config
        self.check()

    def check(self) -> None:
        """Raises UsageError for settings that do not fit each other."""
        return

    @property
    @abstractmethod
    def symbols(self) -> tuple[str, ...]:
        """Names of the ids, without blanks in them; the first is the start symbol."""

    @abstractmethod
    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """Rows of this problem, whose ranges have been settled."""

    @abstractmethod
    def answers(self, batch: Batch) -> Answers:
        """The same answers by another road: plain Python, row by row, from what stands in the inputs.

        Where the next symbol is drawn by chance, targets come from the batch, and ``probs`` are found anew.
        """

    @abstractmethod
    def time(self) -> int:
        """Positions of a row; of a problem with ranges, of the longest."""

    @abstractmethod
    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Settings that are worth measuring at several values: name -> values."""

    @abstractmethod
    def chance(self) -> float:
        """Accuracy of guessing among the answers that are possible."""

    def group_values(self) -> dict[str, Sequence[int]]:
        """Groups -> the values that occur where something is asked."""
        return {}

    def at(self, **point: Any) -> Self:
        """The problem at a point: with other settings.

        Raises:
            UsageError: an unknown setting, or one that changes the symbols or what they mean.
        """
        if not point:
            return self
        known = set(type(self.config).model_fields) - {"name"}
        if odd := [key for key in point if key not in known]:
            raise UsageError(
                f"the problem {self.config.name} has no setting {odd[0]!r}; it has: {', '.join(sorted(known))}."
            )
        other = type(self)(type(self.config).parse({**self.config.model_dump(), **point}))
        if other.symbols != self.symbols:
            raise UsageError(f"{', '.join(point)} changes the symbols of {self.config.name}; train a run with it.")
        for name in self.fixed:
            if getattr(other.config, name) != getattr(self.config, name):
                raise UsageError(f"{name} of {self.config.name} is learned by heart; train a run with another one.")
        return other

    def spans(self) -> tuple[str, ...]:
        """The settings that may be ranges."""
        fields = type(self.config).model_fields
        return tuple(name for name, field in fields.items() if field.annotation == int | tuple[int, int])

    def ranges(self) -> dict[str, tuple[int, int]]:
        """The settings that are ranges."""
        found = {name: getattr(self.config, name) for name in self.spans()}
        return {name: value for name, value in found.items() if isinstance(value, tuple)}

    def longest(self) -> Self:
        """The problem with each range at its upper end."""
        return self.at(**{name: high for name, (_, high) in self.ranges().items()})

    def shortest(self) -> Self:
        """The problem with each range at its lower end."""
        return self.at(**{name: low for name, (low, _) in self.ranges().items()})

    def settle(self, g: np.random.Generator) -> Self:
        """The problem with a number drawn from each range."""
        return self.at(**{name: int(g.integers(low, high + 1)) for name, (low, high) in self.ranges().items()})

    def make(self, g: np.random.Generator, rows: int, **point: Any) -> Batch:
        """Rows of the problem at a point; each range is settled by one draw for all rows.

        Args:
            g: source of all randomness. point: see :meth:`at`.
        """
        return self.at(**point).settle(g).draw(g, rows)

    def batch(
        self, streams: RandomStreams, split: str, number: int, rows: int, apart: bool = False, **point: Any
    ) -> Batch:
        """Batch ``number`` of a split, from these alone.

        Args:
            apart: keep the splits apart: a row belongs to one split alone, by a hash of its inputs.
        Raises:
            UsageError: so few rows exist that a split would be empty.
        """
        g = np.random.Generator(np.random.PCG64(streams.key(f"made {self.config.name} {split}", number)))
        problem = self.at(**point).settle(g)
        if not apart:
            return problem.draw(g, rows)
        kept: list[Batch] = []
        for _ in range(_MOST_TRIES):
            drawn = problem.draw(g, rows)
            kept.append(drawn.rows([place for place, row in enumerate(drawn.inputs) if _split_of(row) == split]))
            if sum(len(part.inputs) for part in kept) >= rows:
                return Batch.joined(kept).rows(range(rows))
        raise UsageError(
            f"{self.config.name} has so few rows of {problem.time()} positions that {split} would be empty; "
            "make rows longer, or set task.apart=false."
        )


def _split_of(row: np.ndarray) -> str:
    """The split that a row belongs to where splits are kept apart."""
    digest = hashlib.blake2b(row.astype("<i8").tobytes(), digest_size=8).digest()
    return _SPLIT_OF.get(int.from_bytes(digest, "little") % _CLASSES, "train")


def shared_rows(problem: Problem, streams: RandomStreams, split: str = "valid", rows: int = 1000) -> float:
    """Share of the first ``rows`` rows of a split whose inputs are among the first ten times as many of training."""
    seen = {row.tobytes() for number in range(10) for row in problem.batch(streams, "train", number, rows).inputs}
    return sum(row.tobytes() in seen for row in problem.batch(streams, split, 0, rows).inputs) / rows
