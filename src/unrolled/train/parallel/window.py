"""The loss of a batch and its gradients, in one process or over a group with torch's own engine."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.core import tree
from unrolled.core.group import current
from unrolled.runs import load_weights, weights
from unrolled.task import Loss, Objective, StepsTask, Watch
from unrolled.train.parallel.config import ParallelConfig

__all__ = ["Inner", "Replicated", "Window", "averaged", "cut"]


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
        return cut(loss)

    @contextlib.contextmanager
    def whole(self) -> Iterator[nn.Module]:
        """The model with the weights as they are, for use outside of training. In a group, of every process."""
        yield self.model

    @contextlib.contextmanager
    def saved(self, path: Path) -> Iterator[nn.Module]:
        """The model with weights of a file, of this process alone; those of the training may be lost."""
        load_weights(self.model, path)
        yield self.model

    def tensors(self) -> dict[str, Tensor]:
        """The weights by name, as a file keeps them, in process 0; whatever it is in others, which must ask too."""
        return weights(self.model)

    def load(self, path: Path) -> None:
        """Take the weights of a file."""
        load_weights(self.model, path)


def cut(loss: Loss) -> Loss:
    """A loss without its graph."""
    parts = {name: value.detach() if isinstance(value, Tensor) else value for name, value in loss.parts.items()}
    return Loss(loss.value.detach(), loss.nats.detach(), loss.count, tree.detach(loss.state), parts)


class Inner(nn.Module):
    """A batch's loss as a forward, so that the engine sees embedding, cells and head within one call."""

    def __init__(self, task: StepsTask, model: nn.Module):
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Any, state: Any, drawn: Any, objective: Objective, watch: Watch) -> Loss:
        loss = self.task.loss(self.model, batch, state, drawn, objective, watch)
        return cut(loss)._replace(value=loss.value)


class Replicated(Window):
    """DistributedDataParallel: every process has the whole model, and gradients are averaged while they are made."""

    def __init__(self, task: StepsTask, model: nn.Module, config: ParallelConfig):
        super().__init__(task, model)
        from torch.nn.parallel import DistributedDataParallel

        # parameters that a batch does not reach (of a cell's unused path) are no fault; static_graph would forbid them,
        # and fails with no_sync
        self._engine = DistributedDataParallel(
            Inner(task, model), find_unused_parameters=True, gradient_as_bucket_view=True
        )
        if config.reduce == "bf16":
            self._engine.register_comm_hook(None, _lowered)

    def __call__(
        self, batch: Any, state: Any, drawn: Any, objective: Objective, over: int, last: bool, watch: Watch
    ) -> Loss:
        with contextlib.nullcontext() if last else self._engine.no_sync():
            loss = self._engine(batch, state, drawn, objective, watch)
            (loss.value / over).backward()
        return cut(loss)


def _lowered(_, bucket):  # unannotated, as torch wants it
    """A bucket of gradients travels and is added up in bf16; torch's own hook of the kind is for nccl alone."""
    import torch.distributed as dist

    buffer = bucket.buffer()
    low = buffer.to(torch.bfloat16).div_(dist.get_world_size())
    arrived = dist.all_reduce(low, async_op=True)
    assert arrived is not None
    return arrived.get_future().then(lambda future: buffer.copy_(future.value()[0]))


def averaged(parameters: Sequence[Tensor]) -> None:
    """Average the gradients of parameters outside the model over the group; a missing one counts as zero."""
    group = current()
    if group.world == 1:
        return
    with torch.no_grad():
        for parameter in parameters:
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = group.mean(grad)
