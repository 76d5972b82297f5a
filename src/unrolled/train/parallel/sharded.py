"""FSDP2 (``fully_shard``): every process holds some rows of each parameter, of its gradient and of what the optimiser
keeps of it; a module's parameters are whole while it computes."""

import contextlib
import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.cells import Cell
from unrolled.core import spread
from unrolled.core.group import current
from unrolled.runs import load_weights, weights
from unrolled.task import Loss, Objective, StepsTask, Watch
from unrolled.train.parallel.config import ParallelConfig
from unrolled.train.parallel.window import Inner, Window, cut

__all__ = ["Sharded"]


class Sharded(Window):
    """See the module. The model's cells are groups of their own, unless they share parameters; embedding, head and what
    stands between the cells are one, since they may be tied.
    """

    def __init__(self, task: StepsTask, model: nn.Module, config: ParallelConfig):
        super().__init__(task, model)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        world = current().world
        device = next(model.parameters()).device.type
        if config.replicas > 1:
            sizes, names = (config.replicas, world // config.replicas), ("replica", "shard")
            mesh = init_device_mesh(device, sizes, mesh_dim_names=names)
        else:
            mesh = init_device_mesh(device, (world,))
        self._skeleton = _emptied(model)
        reduce = torch.bfloat16 if config.reduce == "bf16" else None
        policy = MixedPrecisionPolicy(reduce_dtype=reduce)
        for cell in _apart(model):
            fully_shard(cell, mesh=mesh, mp_policy=policy)
        self._engine: Any = fully_shard(Inner(task, model), mesh=mesh, mp_policy=policy)
        # a cell's output is a transposed view, and nothing here writes into one
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")

    def __call__(
        self, batch: Any, state: Any, drawn: Any, objective: Objective, over: int, last: bool, watch: Watch
    ) -> Loss:
        self._engine.set_requires_gradient_sync(last)
        loss = self._engine(batch, state, drawn, objective, watch)
        (loss.value / over).backward()
        return cut(loss)

    @contextlib.contextmanager
    def whole(self) -> Iterator[nn.Module]:
        with self._filled(dict(self._gathered(keep=True))) as model:
            yield model

    @contextlib.contextmanager
    def saved(self, path: Path) -> Iterator[nn.Module]:
        with self._filled(None) as model:
            load_weights(model, path)
            yield model

    def tensors(self) -> dict[str, Tensor]:
        main = current().main
        return {name: value.cpu() for name, value in self._gathered(keep=main) if main}

    def load(self, path: Path) -> None:
        with self.saved(path) as model:
            for name, value in weights(self.model).items():
                low, high = spread.span(value)
                spread.copy_rows(value, weights(model)[name][low:high])

    def _gathered(self, keep: bool) -> Iterator[tuple[str, Tensor]]:
        """Every parameter, one after another; a process that does not ``keep`` them has one at a time."""
        for name, value in weights(self.model).items():
            whole = spread.whole(value).detach()
            yield name, whole if keep else torch.empty(0)

    @contextlib.contextmanager
    def _filled(self, values: dict[str, Tensor] | None) -> Iterator[nn.Module]:
        """A plain model beside the spread one, for as long as somebody needs it."""
        device = next(self.model.parameters()).device
        own = {name: torch.empty_like(value, device=device) for name, value in weights(self._skeleton).items()}
        for name, value in (values or {}).items():
            own[name].copy_(value)
        _replace(self._skeleton, own)
        try:
            yield self._skeleton
        finally:
            _replace(self._skeleton, {name: value.to("meta") for name, value in own.items()})


def _apart(model: nn.Module) -> list[Cell]:
    """The cells none of whose parameters are anybody else's."""
    cells = [part for part in model.modules() if isinstance(part, Cell)]
    inner = {id(part) for cell in cells for part in cell.modules() if part is not cell and isinstance(part, Cell)}
    cells = [cell for cell in cells if id(cell) not in inner and any(True for _ in cell.parameters())]
    owners: dict[int, int] = {}
    for cell in cells:
        for parameter in cell.parameters():
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    return [cell for cell in cells if all(owners[id(parameter)] == 1 for parameter in cell.parameters())]


def _emptied(model: nn.Module) -> nn.Module:
    """A copy whose parameters take no memory."""
    held = {
        id(parameter): nn.Parameter(parameter.to("meta"), parameter.requires_grad) for parameter in model.parameters()
    }
    return copy.deepcopy(model, held)  # type: ignore[arg-type]  # what a copy takes in a parameter's place


def _replace(model: nn.Module, values: dict[str, Tensor]) -> None:
    """Put tensors in the place of parameters, a tied one everywhere."""
    made = {id(p): nn.Parameter(values[name], p.requires_grad) for name, p in model.named_parameters()}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                setattr(module, name, made[id(parameter)])
