"""The task of a synthetic problem: a language model on rows that are made without end."""

import hashlib
import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.random import RandomStreams
from unrolled.data import Window
from unrolled.data.made import MADE, AnyProblemConfig, Batch, Problem, shared_rows
from unrolled.evaluate.points import Tally, measure_batches
from unrolled.model import LanguageModel
from unrolled.model.dropout import Masks
from unrolled.predict import NeuralPredictor
from unrolled.runs import TOKENIZER, RunConfig, own_tokenizer
from unrolled.task import Evaluation, Goal, Loss, Objective, StepsTask, TaskConfig, TaskResult, Watch, unwatched
from unrolled.task.values import Advance
from unrolled.tasks.lm import window_loss
from unrolled.tokenizer import Tokenizer, save_tokenizer
from unrolled.tokenizer.symbols import SymbolTokenizer

__all__ = ["Made", "MadeConfig", "MadeRows"]

# Rows do not end; this many batches count as an epoch, whose targets are counted on its first few.
_EPOCH, _COUNTED = 1000, 16
# Rows times positions times symbols of a batch, at most.
_MOST_NUMBERS = 1 << 28
# Of validation and, ten times as many, of training, that are looked at for rows that both have.
_COMPARED = 100


class MadeConfig(TaskConfig):
    """Settings of a task of a synthetic problem."""

    name: Literal["made"] = "made"
    problem: AnyProblemConfig = Field(
        default_factory=lambda: MADE.parse("mqar"), description="what is learned; its numbers may be ranges"
    )
    rows: int = Field(default=64, ge=1, le=1 << 20, description="rows of a training batch")
    valid_rows: int = Field(default=512, ge=1, le=1 << 24, description="rows of validation, and of test")
    apart: bool = Field(
        default=False, description="a row belongs to training, validation or test alone, by a hash of its inputs"
    )


class MadeRows:
    """A split of a problem: its first rows, in batches that are made by number.

    Args:
        count: rows, see ``train.valid_tokens``; training has more.
    """

    def __init__(self, problem: Problem, streams: RandomStreams, split: str, config: MadeConfig):
        self.problem, self.streams, self.split, self.config = problem, streams, split, config

    def batch(self, number: int) -> Batch:
        """A batch of full size."""
        return self.problem.batch(self.streams, self.split, number, self.config.rows, self.config.apart)

    def batches(self, count: int) -> Iterator[Batch]:
        """The first ``count`` rows."""
        for number, begin in enumerate(range(0, count, self.config.rows)):
            yield self.batch(number).rows(range(min(self.config.rows, count - begin)))

    @cached_property
    def checksum(self) -> str:
        """Of the settings and the first batch, from which all others follow."""
        first = self.batch(0)
        content = hashlib.sha256(repr((self.config, self.streams.seed, self.split)).encode())
        for part in (first.inputs, first.targets, first.weight):
            content.update(part.tobytes())
        return content.hexdigest()

    def __len__(self) -> int:
        return self.config.valid_rows


class MadeSource:
    """Training batches of a problem. Raises UsageError where nothing is asked in the first ones."""

    def __init__(self, rows: MadeRows):
        self._rows = rows
        self._targets = sum(int((rows.batch(number).weight > 0).sum()) for number in range(_COUNTED)) / _COUNTED
        if not self._targets:
            raise UsageError(f"the rows of {rows.problem.config.name} ask for nothing; make them longer.")

    @property
    def full_batch(self) -> int:
        """Targets of a batch, on average: lengths may be drawn."""
        return max(1, round(self._targets))

    def at(self, position: int) -> Window:
        """See :class:`unrolled.task.Source`; the rows begin anew in each batch."""
        batch = self._rows.batch(position)
        own = self._rows.streams.part(len(batch.inputs))  # rows of the others are made too, and left
        parts = (batch.inputs, batch.targets, batch.weight)
        inputs, targets, weight = (torch.from_numpy(part[own.start : own.stop]) for part in parts)
        return Window(inputs, targets, None, weight, *divmod(position, _EPOCH), carried=False)

    def windows_per_epoch(self) -> int:
        """Rows have no end; a thousand batches are called an epoch."""
        return _EPOCH

    def tokens_per_epoch(self) -> int:
        """Targets of these."""
        return max(1, round(_EPOCH * self._targets))


class Made(StepsTask):
    """Minimises the nats of what a synthetic problem asks for (a row of :data:`unrolled.data.made.MADE`).

    Rows are independent: each begins with the start symbol and a fresh state, batch i is made from the seed and i
    alone. Positions where nothing is asked have no part in the loss. Validations read a fixed set of rows.
    """

    Config = MadeConfig
    EXAMPLES = (
        MadeConfig.parse({"problem": {"name": "group", "kind": "Z2", "length": [1, 8]}, "rows": 4, "valid_rows": 10}),
        MadeConfig.parse(
            {"problem": {"name": "recall", "vocab": 6, "length": 20}, "rows": 3, "valid_rows": 9, "apart": True}
        ),
    )
    noun = "a model of a synthetic problem"
    unit = "answers"
    reads = ("model", "train")
    reads_text = False
    language = True
    goal = Goal("nats")
    objectives = None

    config: RunConfig

    @property
    def _settings(self) -> MadeConfig:
        assert isinstance(self.config.task, MadeConfig)
        return self.config.task

    @property
    def apart(self) -> bool:
        """Whether a row belongs to one split alone."""
        return self._settings.apart

    @cached_property
    def problem(self) -> Problem:
        """What is learned."""
        config = self._settings.problem
        problem = MADE[config.name](config)
        numbers = self._settings.rows * problem.time() * len(problem.symbols)
        if numbers > _MOST_NUMBERS:
            raise UsageError(
                f"{self._settings.rows:,} rows of {problem.time():,} positions and {len(problem.symbols):,} symbols "
                "are too many for a batch; lower task.rows, or the problem's lengths or symbols."
            )
        return problem

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The problem's symbols."""
        if self.saved is not None:
            return own_tokenizer(self.saved.path, self.saved.record)
        return SymbolTokenizer.of(self.problem.symbols)

    @cached_property
    def splits(self) -> dict[str, MadeRows]:
        """Of training the first rows; those of validation and test are the same in every process."""
        held = RandomStreams(self.streams.seed)
        streams = {"train": self.streams, "valid": held, "test": held}
        return {split: MadeRows(self.problem, found, split, self._settings) for split, found in streams.items()}

    def save(self, run: Path) -> None:
        """See :meth:`Task.save`."""
        save_tokenizer(self.tokenizer, run / TOKENIZER)

    def build(self) -> LanguageModel:
        """See :meth:`StepsTask.build`. Raises UnrolledError where a saved run has other symbols than its problem."""
        count = len(self.problem.symbols)
        if self.saved is not None and self.tokenizer.vocab_size != count:
            raise UnrolledError(
                f"{self.saved.path} has {self.tokenizer.vocab_size:,} symbols where its problem has {count:,}: its "
                "config is damaged; train anew."
            )
        return LanguageModel(self.config.model, count)

    def start(self, model: LanguageModel, fresh: bool) -> None:
        """Give a head that asks for them the counts of the targets of some batches."""
        if model.head.needs_counts:
            counts = np.zeros(len(self.problem.symbols), np.int64)
            for number in range(_COUNTED):
                batch = self.splits["train"].batch(number)
                counts += np.bincount(batch.targets[batch.weight > 0], minlength=len(counts))
            model.head.use_counts(torch.from_numpy(counts))

    def source(self) -> MadeSource:
        """See :meth:`StepsTask.source`."""
        return MadeSource(self.splits["train"])

    def rows(self) -> int:
        """See :meth:`StepsTask.rows`."""
        return self._settings.rows

    def draw(self, model: LanguageModel, batch: Window, position: int) -> Masks | None:
        """Dropout masks, and what the head draws."""
        rows, time = batch.inputs.shape
        return model.draw_masks(rows, time, self.streams, position)

    def loss(
        self,
        model: LanguageModel,
        batch: Window,
        state: None,
        drawn: Masks | None,
        objective: Objective,
        watch: Watch = unwatched,
    ) -> Loss:
        """See :meth:`StepsTask.loss`; nothing is carried on."""
        return window_loss(model, batch, None, drawn, objective, watch)._replace(state=None)

    def chance(self) -> float:
        """Of uniform guessing among all symbols."""
        return math.log(len(self.problem.symbols))

    def evaluate(
        self, model: LanguageModel, examples: MadeRows, how: Evaluation, advance: Advance | None = None
    ) -> TaskResult:
        """See :meth:`Task.evaluate`; the fast form and the exact one are the same."""
        count = min(how.limit or len(examples), len(examples))
        done = iter(range(self._settings.rows, count + self._settings.rows, self._settings.rows))

        def heard(tally: Tally) -> None:
            if advance is not None:
                advance(min(next(done), count), count, tally.nats())

        predictor = NeuralPredictor(model, self.problem.start_id)
        found = measure_batches(predictor, examples.batches(count), heard=heard).figures()
        figures = {"accuracy": found.accuracy.value, "nats": found.nats}
        if found.exact is not None:
            figures["exact"] = found.exact.value
        if found.excess is not None and found.error is not None and found.legal is not None:
            figures |= {"excess": found.excess, "excess_error": found.error, "legal": found.legal.value}
        return TaskResult(
            task="made",
            figures=figures,
            counts={"rows": count, "positions": found.positions},
            protocol={"problem": self._settings.problem.name, "split": how.split},
            provenance={**self.provenance(), **how.provenance},
        )

    def logged(self, result: TaskResult) -> dict[str, Any]:
        """Nats, and how many answers were right."""
        return {"nats": result.figures["nats"], "accuracy": result.figures["accuracy"]}

    def changed(self, split: str, run: Path) -> str:
        """See :meth:`Task.changed`; where another release, of this or of numpy, makes other rows."""
        return (
            f"the {split} rows of {self._settings.problem.name} are not those that {run} was begun with; use the "
            "release that began it, or train anew with another --out."
        )

    def provenance(self) -> dict[str, Any]:
        """See :meth:`Task.provenance`."""
        return {"tokenizer": self.tokenizer.fingerprint()}

    def record(self, model: LanguageModel) -> dict[str, Any]:
        """See :meth:`Task.record`; ``shared``: share of rows of validation that are among ten times as many of
        training."""
        return {
            "precision": self.config.model.compute.precision,
            "problem": self._settings.problem.model_dump(mode="json"),
            **self.provenance(),
            "symbols": self.tokenizer.symbols_checksum(),
            "vocabulary": self.tokenizer.vocab_size,
            "shared": self._shared,
            "parameters": model.num_params(),
            "flops_per_token": model.flops_per_token(),
        }

    @cached_property
    def _shared(self) -> float:
        return 0.0 if self.apart else shared_rows(self.problem, RandomStreams(self.streams.seed), rows=_COMPARED)

    def describe(self, model: LanguageModel) -> str:
        """See :meth:`StepsTask.describe`."""
        config = model.config
        cells = ", ".join(dict.fromkeys(cell.name for cell in config.layer_cells()))
        rows = f"{len(self.problem.symbols):,} symbols, rows of up to {self.problem.time():,}"
        return (
            f"{self._settings.problem.name}: {rows}; {config.layers} x {cells} {config.layer_widths()[0]}, "
            f"{model.num_params():,} parameters"
        )

    def operations(self, model: LanguageModel, targets: int) -> dict[str, int]:
        """Not known: most positions have no target."""
        return {}
