"""What a phase updates the weights with; the one place where optimisers are built for training."""

from typing import NamedTuple

import torch
from torch import nn

from unrolled.core.errors import UsageError
from unrolled.core.parameters import rules_of
from unrolled.optim import AVERAGING, Averager, build_optimizer
from unrolled.optim.normed_rmsprop import NormedRMSprop
from unrolled.task import StepsTask
from unrolled.train.config import PhaseConfig
from unrolled.train.objectives.combined import Objectives
from unrolled.train.parallel.window import Window

__all__ = ["Tools", "make_tools"]


class Tools(NamedTuple):
    """Fresh at the beginning of a phase; a training state keeps what they hold."""

    optimizer: torch.optim.Optimizer
    averager: Averager
    objectives: Objectives
    window: Window


def make_tools(phase: PhaseConfig, task: StepsTask, model: nn.Module, window: Window | None = None) -> Tools:
    """The optimiser, the average and the objectives of a phase.

    Args:
        window: what makes losses and gradients; absent: one for this process alone.
    Raises:
        UsageError: an objective that the task or the model does not take.
    """
    objectives = Objectives(phase.objective, phase.extra, task, model)
    optimizer = build_optimizer(phase.optimizer, model.parameters(), rules_of(model))
    if side := objectives.parameters():
        if isinstance(optimizer, NormedRMSprop):
            raise UsageError(
                "the optimiser normed_rmsprop gives the step of all parameters one length, and an objective of "
                "train.extra has parameters of its own; choose another train.optimizer.name, or leave it out."
            )
        # after the model's, whose numbers in a training state stay
        optimizer.add_param_group({"params": side, "weight_decay": phase.optimizer.weight_decay, "rate": 1.0})
    return Tools(
        optimizer,
        AVERAGING[phase.averaging.name](phase.averaging, model.parameters()),
        objectives,
        window or Window(task, model),
    )
