"""Tiny experiments of any task."""

from pathlib import Path
from typing import Any

import torch

from train.runs import experiment
from unrolled.core.random import RandomStreams
from unrolled.task import TASKS, ClosedTask, StepsTask, Task, TaskConfig
from unrolled.train import ExperimentConfig
from unrolled.train.setup import set_up

__all__ = ["CLOSED", "STEPS", "closed_task", "experiment_of", "steps_task"]


def _examples(kind: type[Task]) -> list[Any]:
    found = [(name, config) for name in TASKS if issubclass(TASKS[name], kind) for config in TASKS[name].EXAMPLES]
    return [config for _, config in found]


STEPS, CLOSED = _examples(StepsTask), _examples(ClosedTask)


def experiment_of(config: TaskConfig, text: Path, **train: Any) -> ExperimentConfig:
    """A tiny experiment; parts that the task does not read are left at their defaults."""
    reads = TASKS[config.name].reads
    whole = experiment(text, train=train).model_dump(mode="json")
    unread = {"model", "stream", "train", "tokenizer"} - set(reads)
    if not TASKS[config.name].reads_text:
        unread.add("corpus")
    values = {key: value for key, value in whole.items() if key not in unread}
    return ExperimentConfig.parse({**values, "task": config.model_dump(mode="json")})


def steps_task(config: TaskConfig, text: Path) -> tuple[Any, Any, Any]:
    """(task, model in float64, first batch)."""
    parts = set_up(experiment_of(config, text), "cpu")
    return parts.task, parts.model.double(), parts.source.at(0)


def closed_task(config: TaskConfig, text: Path) -> ClosedTask:
    whole = experiment_of(config, text)
    task = TASKS[config.name](whole, RandomStreams(1))
    assert isinstance(task, ClosedTask)
    torch.manual_seed(0)
    return task
