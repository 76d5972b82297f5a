"""The values that a task, its data and the training loop pass to each other."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import Field, field_validator
from torch import Tensor, nn

from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError
from unrolled.core.group import Group
from unrolled.data.walk import Progress as Advance

__all__ = [
    "Advance",
    "Evaluation",
    "Examples",
    "Goal",
    "Loss",
    "Objective",
    "Saved",
    "Seen",
    "Size",
    "Source",
    "TaskConfig",
    "TaskResult",
    "Watch",
    "unwatched",
]

Watch = Callable[[str], None]
"""Hears the name of each part of a training step at its end."""


def unwatched(part: str) -> None:
    """The watch when nobody looks."""


class TaskConfig(Config):
    """Base of the tasks' configurations. A subclass fixes ``name`` to the task's name in the table."""

    name: str


class Goal(NamedTuple):
    """The figure that validations watch, keep the best weights by and stop by, and which end of it is good."""

    name: str
    best: Literal["min", "max"] = "min"

    def signed(self, figure: float) -> float:
        """The figure so that less is better."""
        return figure if self.best == "min" else -figure


class Saved(NamedTuple):
    """A run to go on with or to read: its directory, and its record (empty where it has none)."""

    path: Path
    record: Mapping[str, Any]


class Examples(Protocol):
    """A split, to be measured; its length is in whatever ``train.valid_tokens`` counts."""

    @property
    def checksum(self) -> str:
        """Of its content."""
        ...

    def __len__(self) -> int: ...


class Source(Protocol):
    """Training batches without end. Any batch is made from its number alone, so that training resumes anywhere."""

    @property
    def full_batch(self) -> int:
        """Targets of a batch of full size."""
        ...

    def at(self, position: int) -> Any:
        """The batch with this number, counted from the start of training; on the CPU."""
        ...

    def windows_per_epoch(self) -> int:
        """Batches of an epoch."""
        ...

    def tokens_per_epoch(self) -> int:
        """Targets of an epoch."""
        ...


class Seen(NamedTuple):
    """What a task shows the objective of one batch.

    model, batch: what made the loss, the batch on the model's device; state: carried into it; drawn: by
    :meth:`StepsTask.draw`. total: the sum of the targets' nats, each times its weight; differentiable.
    nll: the nats of every position, not differentiable. targets, weight, reset: (rows, time); weight None is 1
    everywhere. out: the outputs, where the model has some (see :class:`unrolled.model.ModelOutput`). again: the sum
    with other weights (rows, time), differentiable, where the task can weigh its targets.
    """

    model: nn.Module
    batch: Any
    state: Any
    drawn: Any
    total: Tensor
    nll: Tensor
    targets: Tensor
    weight: Tensor | None = None
    reset: Tensor | None = None
    out: Any = None
    again: Callable[[Tensor], Tensor] | None = None

    def counted(self) -> tuple[Tensor, int]:
        """For reports: the nats of the targets that count, those of a weight other than 0, and their number."""
        if self.weight is None:
            return self.total.detach(), self.targets.numel()
        counts = self.weight != 0
        return self.nll[counts].sum(), int(counts.sum())


Objective = Callable[[Seen], Tensor]
"""The differentiable value of one batch."""


class Loss(NamedTuple):
    """value: what is minimised. nats: summed over ``count`` targets, for reports; not differentiable. state: carried
    on. parts: terms by name; the log has their mean over the batches of a step."""

    value: Tensor
    nats: Tensor
    count: int
    state: Any = None
    parts: Mapping[str, Tensor] = {}


class Evaluation(NamedTuple):
    """How a split is measured. split: its name. limit: only its beginning (None: all of it). columns: None for the
    figure as it is published; else a faster one, that validations in training watch, of so many parts side by side
    where the order of the examples matters. provenance: for the record. group: processes that may share the parts, and
    each get the whole result."""

    split: str = "test"
    limit: int | None = None
    columns: int | None = None
    provenance: Mapping[str, Any] = {}
    group: Group | None = None


class Size(NamedTuple):
    """What a run would cost. facts: JSON values that say it. parameters, flops: of the model, the latter for one
    target forwards. per_epoch, per_batch: targets. Each None where unknown. note: what is to be said of absent data."""

    facts: dict[str, Any]
    parameters: int | None = None
    flops: int | None = None
    per_epoch: int | None = None
    per_batch: int | None = None
    note: str | None = None


class TaskResult(Config):
    """The record of an evaluation: figures, what they were counted over, and how."""

    task: str = Field(description="name of the task")
    figures: dict[str, float] = Field(description="from sums over the examples, never averages over batches")
    counts: dict[str, int] = Field(default={}, description="what the figures are about")
    protocol: dict[str, Any] = Field(default={}, description="whatever another figure would follow from")
    provenance: dict[str, Any] = Field(default={}, description="run, data, checksums")

    @field_validator("figures", mode="before")
    @classmethod
    def _are_finite(cls, figures: Any) -> Any:
        """Raises UnrolledError, which is no ValueError and so passes as it is."""
        values = figures.items() if isinstance(figures, Mapping) else ()  # what is no mapping is refused after this
        odd = [name for name, value in values if isinstance(value, float) and not math.isfinite(value)]
        if odd:
            raise UnrolledError(f"{odd[0]} is not a finite number; the model's weights are damaged or diverged.")
        return figures

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, with the kind and the version of the format."""
        return {"kind": "task evaluation", "version": 1, **self.model_dump(mode="json")}

    def rows(self) -> list[tuple[str, str]]:
        """(name, value) for a table that people read."""
        counts = [(name.replace("_", " "), f"{value:,}") for name, value in self.counts.items()]
        return [*counts, *((name.replace("_", " "), f"{value:,.4f}") for name, value in self.figures.items())]
