"""What a phase updates the weights with; the one place where optimisers are built for training."""

from typing import NamedTuple

import torch
from torch import nn

from unrolled.core.parameters import rules_of
from unrolled.optim import AVERAGING, Averager, build_optimizer
from unrolled.train.config import PhaseConfig

__all__ = ["Tools", "make_tools"]


class Tools(NamedTuple):
    """Fresh at the beginning of a phase; a training state keeps what they hold."""

    optimizer: torch.optim.Optimizer
    averager: Averager


def make_tools(phase: PhaseConfig, model: nn.Module) -> Tools:
    """The optimiser and the average of a phase."""
    optimizer = build_optimizer(phase.optimizer, model.parameters(), rules_of(model))
    return Tools(optimizer, AVERAGING[phase.averaging.name](phase.averaging, model.parameters()))
