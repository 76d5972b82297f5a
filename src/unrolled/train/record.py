"""The run record: what computed the run, on what, for how long, and what came out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from unrolled.core.files import write_json
from unrolled.core.record import environment
from unrolled.kernels import dispatch
from unrolled.runs import RECORD
from unrolled.task import Task
from unrolled.train.progress import Progress

__all__ = ["Spent", "of_steps", "write_record"]


class Spent(NamedTuple):
    """Seconds of a run so far, over all the processes that worked on it."""

    wall: float
    cpu: float


def write_record(
    out: Path,
    task: Task,
    model: Any,
    status: str,
    progress: Progress,
    spent: Spent,
    steps: Mapping[str, Any],
    exact: Any = None,
) -> None:
    """Write ``record.json``, of whatever task.

    Args:
        out: the run directory. model: a module, or what a closed task solved.
        steps: what a run that is trained in steps has to say besides, see :func:`of_steps`; empty for others.
        exact: the result on the validation split as it is published, once it is known.
    """
    device = next(model.parameters()).device if isinstance(model, nn.Module) else "cpu"
    record = {
        "kind": "unrolled record",
        "version": 1,
        "title": task.config.title,
        "task": task.config.task.name,
        "status": status,
        "environment": environment(),
        "device": str(device),
        **task.record(model),
        **_trained(model),
        "checksums": progress.checksums,
        **steps,
        "steps": progress.step,
        "tokens": progress.tokens,
        "wall_seconds": spent.wall,
        "cpu_seconds": spent.cpu,
        "valid": progress.valid,
        "valid_exact": None if exact is None else exact.to_json(),
    }
    write_json(out / RECORD, record)


def _trained(model: Any) -> dict[str, int]:
    """How many of a module's parameters are trained."""
    if not isinstance(model, nn.Module):
        return {}
    return {"trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad)}


def of_steps(progress: Progress, tokens_per_epoch: int) -> dict[str, Any]:
    """How far a run is that is trained in steps; ``best_step`` is the step of the weights in ``model.safetensors``."""
    return {
        "backends": dispatch.choices(),
        "phase": progress.phase + 1,
        "phase_step": progress.phase_step,
        "phase_steps": progress.phase_steps,
        "plans": progress.plans,
        "epochs": progress.tokens / tokens_per_epoch,
        "best_step": progress.best_step,
        "averaging_began": progress.averaging_began,
    }
