"""The contract of labelled rows: sequences with one label each, by split."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from unrolled.core.config import Config
from unrolled.core.errors import UsageError

__all__ = ["Kind", "LabelledConfig", "LabelledSource", "LabelledSplit"]

Kind = Literal["text", "symbols", "frames"]
"""What a row is: a text, for a tokenizer; ids of fixed symbols; or vectors of numbers, one a step."""


class LabelledConfig(Config):
    """Base of the configurations of labelled rows. A subclass fixes ``name`` to the name in the table."""

    name: str


class LabelledSplit:
    """Rows and their labels.

    Args:
        rows: one array a row, ids (time,) or frames (time, channels), none of them empty. labels: int64 (n,).
        groups: name -> int64 (n,), by which accuracies are told apart.
        name: of the split, for sentences.
    Raises:
        UsageError: no row, or an empty one.
    """

    def __init__(
        self,
        rows: Sequence[np.ndarray],
        labels: np.ndarray,
        groups: Mapping[str, np.ndarray] | None = None,
        name: str = "this split",
    ):
        self.rows, self.labels, self.groups, self.name = list(rows), np.asarray(labels, np.int64), groups or {}, name
        sizes = [len(row) for row in self.rows]
        if not sizes:
            raise UsageError(f"{name} has no rows; give one at least.")
        if not min(sizes):
            raise UsageError(f"row {sizes.index(0) + 1} of {name} is empty; leave it out.")

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 (n,), steps of each row."""
        return np.array([len(row) for row in self.rows], np.int64)

    @cached_property
    def checksum(self) -> str:
        """Of rows and labels."""
        content = hashlib.sha256(self.labels.tobytes())
        for row in self.rows:
            content.update(repr(row.shape).encode() + np.ascontiguousarray(row).tobytes())
        return content.hexdigest()

    rows_cut: int = 0
    """How many rows :meth:`cut` has cut."""

    def cut(self, longest: int) -> "LabelledSplit":
        """The rows with at most so many steps, their first ones."""
        made = LabelledSplit([row[:longest] for row in self.rows], self.labels, self.groups, self.name)
        made.rows_cut = int((self.lengths > longest).sum())
        return made

    def beginning(self, limit: int | None) -> "LabelledSplit":
        """The first ``limit`` rows."""
        if limit is None or limit >= len(self):
            return self
        groups = {name: values[:limit] for name, values in self.groups.items()}
        return LabelledSplit(self.rows[:limit], self.labels[:limit], groups, self.name)


class LabelledSource(ABC):
    """Where rows come from.

    Args:
        config: its settings.
    Raises:
        UsageError: whatever is wrong with the data, in one sentence.

    Attributes:
        kind: what a row is. classes: names of the labels, by number. symbols: of ``symbols``, names of the ids.
            channels: of ``frames``, numbers of a step.
    """

    Config: ClassVar[type[LabelledConfig]]
    kind: ClassVar[Kind]
    classes: tuple[str, ...]
    symbols: tuple[str, ...] = ()
    channels: int = 0

    def __init__(self, config: Any):
        self.config = config

    @abstractmethod
    def texts(self) -> dict[str, tuple[list[str], np.ndarray]]:
        """Of kind ``text``: the texts and their labels, int64, by split; ``train``, and ``valid`` and ``test`` where
        there are such."""

    @abstractmethod
    def splits(self) -> dict[str, LabelledSplit]:
        """Of the other kinds: the rows by split."""
