"""The loss of a batch and its gradients, in one process or over a group with torch's own engine."""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.core import tree
from unrolled.core.group import Group, current
from unrolled.task import Loss, Objective, StepsTask, Watch
from unrolled.train.parallel.config import ParallelConfig

__all__ = ["Window", "make_window"]


class Window:
    """Loss and gradients of a batch; this class in one process.

    Args:
        task, model: the run's.
    """

    def __init__(self, task: StepsTask, model: nn.Module):
        self.task, self.model = task, model

    def __call__(
        self, batch: Any, state: Any, drawn: Any, objective: Objective, over: int, last: bool, watch: Watch
    ) -> Loss:
        """Add the gradient of the batch's value, divided by ``over``, to those of the parameters, averaged over the
        group.

        Args:
            last: whether the step's gradient is complete with this batch; those before it need not travel.
        Returns:
            the loss, cut from its graph.
        """
        loss = self.task.loss(self.model, batch, state, drawn, objective, watch)
        (loss.value / over).backward()
        return _cut(loss)


def _cut(loss: Loss) -> Loss:
    parts = {name: value.detach() if isinstance(value, Tensor) else value for name, value in loss.parts.items()}
    return Loss(loss.value.detach(), loss.nats.detach(), loss.count, tree.detach(loss.state), parts)


class _Inner(nn.Module):
    """A batch's loss as a forward, so that the engine sees embedding, cells and head within one call."""

    def __init__(self, task: StepsTask, model: nn.Module):
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Any, state: Any, drawn: Any, objective: Objective, watch: Watch) -> Loss:
        loss = self.task.loss(self.model, batch, state, drawn, objective, watch)
        return _cut(loss)._replace(value=loss.value)


class _Replicated(Window):
    """DistributedDataParallel: every process has the whole model, and gradients are averaged while they are made."""

    def __init__(self, task: StepsTask, model: nn.Module, config: ParallelConfig):
        super().__init__(task, model)
        from torch.nn.parallel import DistributedDataParallel

        # parameters that a batch does not reach (of a cell's unused path) are no fault; static_graph would forbid them,
        # and fails with no_sync
        self._engine = DistributedDataParallel(
            _Inner(task, model), find_unused_parameters=True, gradient_as_bucket_view=True
        )
        if config.reduce == "bf16":
            from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

            self._engine.register_comm_hook(None, bf16_compress_hook)

    def __call__(
        self, batch: Any, state: Any, drawn: Any, objective: Objective, over: int, last: bool, watch: Watch
    ) -> Loss:
        with contextlib.nullcontext() if last else self._engine.no_sync():
            loss = self._engine(batch, state, drawn, objective, watch)
            (loss.value / over).backward()
        return _cut(loss)


def make_window(task: StepsTask, model: nn.Module, config: ParallelConfig, group: Group | None = None) -> Window:
    """The window of a run's model for this process's group."""
    group = current() if group is None else group
    return Window(task, model) if group.world == 1 else _Replicated(task, model, config)


def averaged(parameters: Sequence[Tensor]) -> None:
    """Average the gradients of parameters outside the model over the group; a missing one counts as zero."""
    group = current()
    if group.world == 1:
        return
    with torch.no_grad():
        for parameter in parameters:
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = group.mean(grad)
