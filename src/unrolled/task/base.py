"""The contract of a task: what is learned, from what, and how it is measured."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.predict import Predictor
from unrolled.task.values import (
    Advance,
    Evaluation,
    Examples,
    Goal,
    Loss,
    Objective,
    Saved,
    Size,
    Source,
    TaskConfig,
    TaskResult,
    Watch,
    unwatched,
)
from unrolled.tokenizer import Tokenizer

__all__ = ["ClosedTask", "StepsTask", "Task"]


class Task(ABC):
    """One kind of problem, opened on the data of a run.

    Args:
        config: the run's (:class:`unrolled.runs.RunConfig`); the task reads its own part, ``task``, the corpus, and
            those parts that ``reads`` names.
        streams: source of all random draws.
        saved: a run whose vocabularies are taken. Then data are opened when they are first asked for: a run is used
            where its text is absent.

    Attributes:
        config: the given one with everything settled that opening settles; it is what a run keeps.
        tokenizer: of the tasks that read text; None for others.
    """

    Config: ClassVar[type[TaskConfig]]
    EXAMPLES: ClassVar[tuple[TaskConfig, ...]]
    noun: ClassVar[str]
    """What its models are called in messages, with an article."""
    reads: ClassVar[tuple[str, ...]] = ()
    """What it reads of the config besides ``task`` and ``corpus``: of model, stream, tokenizer, train and weights."""
    language: ClassVar[bool] = False
    """Whether its models predict the next token of a text, so that they score, compress, generate and are mixed."""
    reads_text: ClassVar[bool] = True
    """Whether examples are those of a corpus. A ``language`` task without one is measured by its own figures."""
    frames: ClassVar[bool] = False
    """Whether its models write frames of numbers, which ``generate`` draws (see :mod:`unrolled.generate.frames`)."""
    writes: ClassVar[bool] = False
    """Whether these frames are those of a text that is given."""
    fit: ClassVar[Literal["steps", "closed"]]

    def __init__(self, config: Any, streams: RandomStreams, saved: Saved | None = None):
        self.config, self.streams, self.saved = config, streams, saved

    @property
    def tokenizer(self) -> Tokenizer | None:
        """See the class."""
        return None

    def save(self, run: Path) -> None:
        """Write the vocabularies into a run directory, as JSON."""
        return

    @property
    @abstractmethod
    def splits(self) -> Mapping[str, Examples]:
        """Splits by name; ``train``, and ``valid`` where validations are to be made."""

    @abstractmethod
    def record(self, model: Any) -> dict[str, Any]:
        """JSON values for the run record: data, vocabularies, size of the model."""

    def changed(self, split: str, run: Path) -> str:
        """What is said of a split that is no longer what a run was begun with."""
        return (
            f"the {split} text of corpus {self.config.corpus.label} is not the one that {run} was begun with; bring "
            "that text back, or train anew with another --out."
        )

    def provenance(self) -> dict[str, Any]:
        """JSON values for the record of any evaluation: what examples were read by."""
        return {}

    @abstractmethod
    def evaluate(self, model: Any, examples: Any, how: Evaluation, advance: Advance | None = None) -> Any:
        """Measure a model on a split. Returns a :class:`TaskResult`, or whatever :meth:`result` gives."""

    @classmethod
    def result(cls, value: Mapping[str, Any]) -> Any:
        """The result whose JSON values a record holds."""
        return TaskResult.parse({key: inner for key, inner in value.items() if key not in ("kind", "version")})

    @classmethod
    def told(cls, result: Any) -> str:
        """A result in a few words."""
        return ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in result.figures.items())

    @classmethod
    def protocol(cls, result: Any) -> str:
        """How a result was obtained, in a few words."""
        return ", ".join(f"{name} {value}" for name, value in result.protocol.items()) or "every example once"

    @classmethod
    @abstractmethod
    def size(cls, config: Any) -> Size:
        """What a run would cost, as far as it is known without a step."""


class StepsTask(Task):
    """A task that is trained step by step."""

    fit = "steps"
    goal: ClassVar[Goal]
    objectives: ClassVar[tuple[str, ...] | None] = ()
    """Which of the further objectives (``train.extra``) may be added to its loss; None: all."""
    unit: ClassVar[str] = "tokens"
    """What the targets of training are, for the rate that a run shows."""
    rows_setting: ClassVar[str] = ""
    """The setting that says how many rows a batch has, for sentences; of tasks that have :meth:`rows`."""

    @abstractmethod
    def build(self) -> nn.Module:
        """A fresh model on the CPU; the caller has seeded torch."""

    def start(self, model: nn.Module, fresh: bool) -> None:
        """Put into a model what its training needs to know of the data and, in a ``fresh`` run, the weights that it is
        to begin with."""

    @abstractmethod
    def source(self) -> Source:
        """The training batches."""

    def initial_state(self, model: Any) -> Any:
        """What is carried into the first batch, as a tree of tensors; None where batches are independent."""
        return

    def draw(self, model: Any, batch: Any, position: int) -> Any:
        """What is drawn for a batch: masks, negatives, noise; from named streams and the batch's number alone."""
        return

    def rows(self) -> int | None:
        """Rows of a batch of the whole run, which processes may share: :meth:`source`, :meth:`initial_state` and
        :meth:`draw` then give those of ``streams.part(rows)`` alone. None for a task that is trained by one process."""
        return None

    @abstractmethod
    def loss(
        self, model: Any, batch: Any, state: Any, drawn: Any, objective: Objective, watch: Watch = unwatched
    ) -> Loss:
        """The loss of a batch.

        Args:
            state: what the last batch's loss gave, cut from its graph; None at the very start.
            objective: makes the value from a :class:`Seen`.
        """

    def chance(self) -> float | None:
        """Nats per target of guessing, by which a loss that runs away is known; None where there is no such thing."""
        return

    def figure(self, result: Any) -> float:
        """The goal's figure of a result."""
        return result.figures[self.goal.name]

    def logged(self, result: Any) -> dict[str, Any]:
        """What a line of the log says of a validation."""
        return {self.goal.name: self.figure(result)}

    def describe(self, model: Any) -> str:
        """Data and model in a few words, for the line that a run begins with."""
        return f"{self.noun} with {sum(p.numel() for p in model.parameters()):,} parameters"

    def operations(self, model: Any, targets: int) -> dict[str, int]:
        """Of the matrix products of each part of a step over so many targets; empty where they are not known."""
        return {}

    @classmethod
    def size(cls, config: Any) -> Size:
        """See :class:`Task`; by opening the data and building a model."""
        task = cls(config, RandomStreams(config.seed))
        with torch.random.fork_rng(devices=[]):
            parameters = sum(p.numel() for p in task.build().parameters())
        source = task.source()
        return Size({"parameters": parameters}, parameters, None, source.tokens_per_epoch(), source.full_batch)


class ClosedTask(Task):
    """A task whose models are solved at once: nothing is trained step by step."""

    fit = "closed"
    files: ClassVar[tuple[str, ...]]
    """What :meth:`keep` writes."""

    @abstractmethod
    def solve(self, note: Callable[[str], None]) -> Any:
        """The model. note: hears what is worth a line."""

    @abstractmethod
    def keep(self, model: Any, run: Path) -> None:
        """Write a model into a run directory."""

    @classmethod
    @abstractmethod
    def kept(cls, run: Path) -> Any:
        """Read what :meth:`keep` wrote. Raises UnrolledError for damaged files."""

    @classmethod
    @abstractmethod
    def identity(cls, model: Any) -> str | None:
        """A checksum of a saved model."""

    @classmethod
    def predictor(cls, model: Any) -> Predictor:
        """The predictor of a model of a ``language`` task. Raises UsageError for others."""
        raise UsageError(f"{cls.noun} does not predict a text; use a run of a language model.")
