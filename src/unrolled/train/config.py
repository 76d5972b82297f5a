"""Configuration of training."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.data import CorpusConfig, StreamConfig
from unrolled.model import ModelConfig
from unrolled.optim import AVERAGING, OPTIMIZERS, AnyAveragingConfig, AnyOptimizerConfig, ScheduleConfig
from unrolled.runs import RunConfig
from unrolled.task import TASKS
from unrolled.train.objectives import AnyObjectiveConfig, ObjectiveConfig
from unrolled.train.parallel.config import ParallelConfig

__all__ = ["BUDGETS", "ExperimentConfig", "PhaseConfig", "TrainConfig"]

BUDGETS = ("steps", "tokens", "epochs", "minutes", "cpu_minutes")


class PhaseConfig(Config):
    """One phase of training: a budget, an optimiser, a schedule."""

    steps: int | None = Field(default=None, le=10**12, description="budget in optimiser steps")
    tokens: int | None = Field(default=None, le=10**15, description="budget in training tokens")
    epochs: float | None = Field(default=None, le=1e6, description="budget in passes over the training text")
    minutes: float | None = Field(default=None, le=1e7, description="budget in wall-clock minutes of the process")
    cpu_minutes: float | None = Field(
        default=None,
        le=1e7,
        description="budget in CPU minutes: user + system time of all threads and children of the process",
    )
    optimizer: AnyOptimizerConfig = Field(default_factory=lambda: OPTIMIZERS.parse("adam"), description="update rule")
    schedule: ScheduleConfig = Field(default=ScheduleConfig(), description="learning rate over the budget")
    objective: ObjectiveConfig = Field(default=ObjectiveConfig(), description="what is minimised")
    extra: tuple[AnyObjectiveConfig, ...] = Field(
        default=(), description="further objectives, each with a name and a weight, that are added to it"
    )
    lr_by_length: bool = Field(
        default=False,
        description="multiply the learning rate of a step by the length of its window over stream.window (AWD-LSTM, "
        "with stream.variable_windows)",
    )
    clip: float | None = Field(default=1.0, ge=0, description="largest global norm of the gradient (0: no clipping)")
    averaging: AnyAveragingConfig = Field(
        default_factory=lambda: AVERAGING.parse("none"),
        description="average of the weights, which is validated and saved in their place",
    )
    until_loss: float | None = Field(
        default=None,
        ge=0,
        le=1e6,
        description="end the phase once the training loss, the mean nats per token over as many tokens as an epoch "
        "has, is at most this",
    )
    nonmonotone_stop: int | None = Field(
        default=None,
        ge=1,
        description="end the phase at a validation worse than the best one more than this many before it",
    )
    accumulate: int = Field(default=1, ge=1, le=10**6, description="windows whose gradients are averaged for one step")

    @model_validator(mode="after")
    def _each_once(self) -> Any:
        names = [one.name for one in self.extra]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"train.extra has the objective {name} twice; keep one of them.")
        return self

    @model_validator(mode="after")
    def _one_budget(self) -> Any:
        given = {name: getattr(self, name) for name in BUDGETS if getattr(self, name) is not None}
        if len(given) > 1:
            raise UsageError(f"train has several budgets ({', '.join(given)}); keep one and remove the others.")
        for name, value in given.items():
            if value <= 0:
                raise UsageError(f"train.{name} is {value}; a budget must be above zero.")
        if not given:
            raise UsageError(f"every phase of train needs a budget, one of: {', '.join(BUDGETS)}.")
        return self

    def budget(self) -> tuple[str, float]:
        """(kind, amount)."""
        return next((name, value) for name in BUDGETS if (value := getattr(self, name)) is not None)


class TrainConfig(PhaseConfig):
    """Training: the first phase, and what holds for the whole run. Without any budget it is 2 CPU minutes."""

    then: tuple[PhaseConfig, ...] = Field(
        default=(), description="further phases; each starts from the best weights so far with a fresh optimiser"
    )
    trainable: tuple[str, ...] = Field(
        default=("*",),
        min_length=1,
        description="patterns of the names of parameters that are trained, such as head.* or *bias; the others stay as "
        "they begin (see weights.file)",
    )
    threads: int | None = Field(default=None, ge=1, le=1024, description="CPU threads (absent: torch's default)")
    validations: int = Field(
        default=10, ge=0, le=10**6, description="validations spread evenly over a phase (0: only at its end)"
    )
    valid_columns: int = Field(
        default=20,
        ge=1,
        description="columns of the validations in training: fast, a little worse than the exact figure",
    )
    valid_tokens: int | None = Field(
        default=None,
        ge=1,
        description="tokens from the beginning of the validation split that are scored, at the end too "
        "(absent: all of them)",
    )
    patience: int | None = Field(
        default=None, ge=1, description="end a phase after this many validations without a new best"
    )
    keep: Literal["best", "last"] = Field(
        default="best",
        description="the weights that are saved, and that a next phase begins from: of the best validation, or of the "
        "last one, which ends a phase",
    )
    final_eval: bool = Field(
        default=True, description="score the validation split in one column at the end; not part of the budget"
    )
    parallel: ParallelConfig = Field(
        default=ParallelConfig(), description="several processes that train one run (torchrun)"
    )
    log_every: int = Field(default=50, ge=1, description="steps between lines of metrics.jsonl")
    save_minutes: float = Field(default=5.0, ge=0, description="wall-clock minutes between saves of the training state")

    @model_validator(mode="after")
    def _kept(self) -> Any:
        if self.keep == "last" and self.patience is not None:
            raise UsageError("train.patience waits for a best validation, and train.keep=last keeps none; drop one.")
        return self

    @model_validator(mode="before")
    @classmethod
    def _default_budget(cls, value: Any) -> Any:
        # filled in, so that the saved config states it
        if isinstance(value, Mapping) and all(value.get(name) is None for name in BUDGETS):
            return {**value, "cpu_minutes": 2.0}
        return value

    def phases(self) -> tuple[PhaseConfig, ...]:
        """All phases in order."""
        return (self, *self.then)


class ExperimentConfig(RunConfig):
    """A whole experiment, as a recipe states it and as ``config.json`` keeps it."""

    train: TrainConfig = Field(default_factory=TrainConfig, description="training")

    @model_validator(mode="after")
    def _read(self) -> Any:
        task = TASKS[self.task.name]
        unset = {"model": ModelConfig(), "stream": StreamConfig(), "train": TrainConfig(), "corpus": CorpusConfig()}
        reads = (*task.reads, *(("corpus",) if task.reads_text else ()))
        for name in ("model", "stream", "train", "tokenizer", "weights", "corpus"):
            if name not in reads and getattr(self, name) != unset.get(name):
                raise UsageError(f"{task.noun} has no settings {name}.*; set task.* alone.")
        return self
