"""From a configuration to the parts that training works with."""

from typing import NamedTuple

import torch
from torch import nn

from unrolled.core.device import pick_device
from unrolled.core.errors import UsageError
from unrolled.core.group import current
from unrolled.core.parameters import freeze
from unrolled.core.random import RandomStreams
from unrolled.task import TASKS, ClosedTask, Saved, Source, StepsTask
from unrolled.train.config import ExperimentConfig
from unrolled.train.parallel.shards import check_rows, own_shards

__all__ = ["Parts", "open_closed", "set_up"]


class Parts(NamedTuple):
    """What a run that is trained in steps is made of. ``config`` is complete: see :class:`unrolled.task.Task`."""

    config: ExperimentConfig
    task: StepsTask
    source: Source
    model: nn.Module


def set_up(config: ExperimentConfig, device: str = "auto", saved: Saved | None = None) -> Parts:
    """Open the task, and build its batches and its model; the initial weights depend on the seed alone.

    Args:
        saved: the run that is resumed.
    Raises:
        UsageError: whatever is wrong with the data or the model, in one sentence.
    """
    cls, group = TASKS[config.task.name], current()
    if not issubclass(cls, StepsTask):
        raise UsageError(f"{cls.noun} is not trained in steps.")
    shards = own_shards(config.train.parallel, group, None if saved is None else str(saved.path))
    if shards is not None:  # a run keeps the number that it was begun with
        parallel = config.train.parallel.model_copy(update={"shards": shards.count})
        config = config.model_copy(update={"train": config.train.model_copy(update={"parallel": parallel})})
    streams = RandomStreams(config.seed, shards=shards)
    task = cls(config, streams, saved)
    check_rows(task.rows(), shards, cls.rows_setting, cls.noun)
    source = task.source()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(streams.key("init"))
        model = task.build()
    task.start(model, fresh=saved is None)
    freeze(model, config.train.trainable)
    where = pick_device(device)
    if where.type == "cuda" and group.world > 1:
        where = torch.device("cuda", torch.cuda.current_device())
    return Parts(task.config, task, source, model.to(where))


def open_closed(config: ExperimentConfig) -> ClosedTask | None:
    """The task of a run that is solved at once; None for one that is trained in steps."""
    cls = TASKS[config.task.name]
    return cls(config, RandomStreams(config.seed)) if issubclass(cls, ClosedTask) else None
