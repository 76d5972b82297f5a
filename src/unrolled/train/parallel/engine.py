"""The engine of a run: torch's own, by what its configuration says and what fits."""

import torch
from torch import nn

from unrolled.core.errors import UsageError
from unrolled.core.group import agreed, current
from unrolled.core.memory import device_memory
from unrolled.task import StepsTask
from unrolled.train.config import TrainConfig
from unrolled.train.parallel.window import Replicated, Window

__all__ = ["fits", "make_window", "parallel_kind"]

_BYTES_A_PARAMETER = 20
"""Of a process that holds all of a model: weights, gradients, two tensors of the optimiser and a lowered copy or a
bucket, in float32; 16 and 4 bytes."""
# Of the memory there is, for what a model keeps; the rest is activations.
_SHARE = 0.7


def parallel_kind(train: TrainConfig, model: nn.Module) -> str:
    """What ``auto`` stands for here: ddp or fsdp."""
    kind = train.parallel.kind
    if kind != "auto":
        return kind
    size = sum(parameter.numel() for parameter in model.parameters())
    return "ddp" if fits(size, next(model.parameters()).device) else "fsdp"


def fits(parameters: int, device: torch.device) -> bool:
    """Whether a process can hold a whole model of so many parameters, with room for activations."""
    free = device_memory(device)
    return free is None or _BYTES_A_PARAMETER * parameters <= _SHARE * free


def make_window(task: StepsTask, model: nn.Module, train: TrainConfig) -> Window:
    """What makes the losses and gradients of a run's model in this process's group; before anything is made of its
    parameters, whose place FSDP's take.

    Raises:
        UsageError: fsdp for a budget in time, or with replicas that do not divide the number of processes.
    """
    if current().world == 1:
        return Window(task, model)
    if current().first(parallel_kind(train, model)) == "ddp":
        return Replicated(task, model, train.parallel)
    with agreed():
        world, replicas = current().world, train.parallel.replicas
        if world % replicas:
            raise UsageError(f"train.parallel.replicas = {replicas} does not divide {world} processes; give a divisor.")
        if any(phase.budget()[0].endswith("minutes") for phase in train.phases()):
            raise UsageError(
                "with train.parallel.kind=fsdp a step cannot be timed beforehand; give a budget in tokens, steps or "
                "epochs."
            )
    from unrolled.train.parallel.sharded import Sharded

    return Sharded(task, model, train.parallel)
