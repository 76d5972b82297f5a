"""The training state on disk: everything that makes a resumed run equal to an uninterrupted one."""

import re
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrolled.core import tree
from unrolled.core.errors import UnrolledError
from unrolled.core.files import atomic_folder, make_folder, read_json, write_json

__all__ = ["FOLDER", "latest", "load_optimizer", "load_state", "optimizer_tensors", "save_state"]

FOLDER = "train_state"
_NAME = re.compile(r"\d{9}")


def _saved(run: Path) -> list[Path]:
    folder = run / FOLDER
    return sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name)) if folder.is_dir() else []


def latest(run: Path) -> Path | None:
    """The newest complete training state of a run, or None."""
    saved = _saved(run)
    return saved[-1] if saved else None


def save_state(run: Path, step: int, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
    """Write one training state as a whole and drop the older ones.

    The folder appears under its name only when every file in it is on disk; a process killed at any moment leaves
    the state before or the state after.
    """
    folder = make_folder(run / FOLDER)
    final = folder / f"{step:09d}"
    if not final.exists():
        with atomic_folder(final) as part:
            tree.save_tensors(part / "tensors.safetensors", tensors)
            write_json(part / "progress.json", progress)
    for old in _saved(run):
        if old != final:
            shutil.rmtree(old, ignore_errors=True)
    for part in folder.glob(".*.part"):
        shutil.rmtree(part, ignore_errors=True)


def load_state(run: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and progress of the newest training state. Raises UnrolledError when there is none."""
    path = latest(run)
    if path is None:
        raise UnrolledError(f"{run} has no training state to resume from; start again with another --out.")
    return tree.load_tensors(path / "tensors.safetensors"), read_json(path / "progress.json")


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state by ``optimizer.<parameter number>.<key>``."""
    found = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for i, parameter in enumerate(parameters):
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                found[f"optimizer.{i}.{key}"] = value
    return found


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` gave."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".", 2)
            # cloned: a tensor mapped from a file may be aligned otherwise than one that torch allocated
            optimizer.state[parameters[int(number)]][key] = value.clone()
