"""The training state on disk: everything that makes a resumed run equal to an uninterrupted one."""

import collections
import copy
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from unrolled.core import tree
from unrolled.core.errors import UnrolledError
from unrolled.core.files import atomic_folder, make_folder, read_json
from unrolled.core.registry import shown
from unrolled.runs import CONFIG, STATE_TENSORS, STATES, saved_states, weights
from unrolled.train.config import ExperimentConfig
from unrolled.train.progress import Progress
from unrolled.train.tools import Tools

__all__ = ["exists", "pack", "read_progress", "restore", "save_state", "sweep"]

_PROGRESS = "progress.json"
_REMEDY = "train anew with another --out (the best weights can still be evaluated)"


def exists(run: Path) -> bool:
    """Whether the run has a training state."""
    return bool(saved_states(run))


def save_state(run: Path, tensors: dict[str, Tensor], progress: Progress) -> None:
    """Write one training state as a whole and drop the older ones.

    States are numbered in the order of saving. A folder appears under its number only when every file in it is on
    disk; a process killed at any moment leaves the state before or the state after.
    """
    folder = make_folder(run / STATES)
    old = saved_states(run)
    with atomic_folder(folder / f"{int(old[-1].name) + 1 if old else 0:09d}") as part:
        # plain writes: the folder as a whole is what is atomic and flushed
        save_file({name: value.detach().contiguous().cpu() for name, value in tensors.items()}, part / STATE_TENSORS)
        (part / _PROGRESS).write_text(progress.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for path in old:
        shutil.rmtree(path, ignore_errors=True)


def sweep(run: Path) -> None:
    """Remove what a killed process left half written. Only for the process that has claimed the run."""
    for part in (*run.glob(".*.part"), *(run / STATES).glob(".*.part")):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def pack(model: nn.Module, tools: Tools, carried: Any) -> dict[str, Tensor]:
    """The tensors of a training state: ``model.<parameter>``, ``side.<objective>.<parameter>``,
    ``optimizer.<number>.<key>``, ``average.<name>.<number>``, ``carried.<path>``."""
    named = {f"model.{name}": value for name, value in weights(model).items()}
    for i, parameter in enumerate(_parameters(tools.optimizer)):
        for key, value in tools.optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                named[f"optimizer.{i}.{key}"] = value
    named |= {f"side.{name}": value for name, value in tools.objectives.weights().items()}
    named |= {f"average.{name}": value for name, value in tools.averager.tensors().items()}
    if carried is not None:
        named |= {f"carried.{path}": value for path, value in tree.flatten(carried).items()}
    return named


def read_progress(run: Path) -> Progress:
    """The progress of the newest training state, which exists. Raises UnrolledError when it is damaged."""
    path = saved_states(run)[-1] / _PROGRESS
    try:
        progress = Progress.model_validate(read_json(path))
    except ValidationError as error:
        raise UnrolledError(f"{path} is damaged; {_REMEDY}.") from error
    if progress.phase >= len(ExperimentConfig.load(run / CONFIG).train.phases()):
        raise UnrolledError(f"{path} is damaged or of another run; {_REMEDY}.")
    return progress


def restore(run: Path, model: nn.Module, tools: Tools, numbers: dict[str, float], initial: Any) -> Any:
    """Put the newest training state of a run into a model, an optimiser and an averager.

    Args:
        numbers: the averager's.
        initial: what is carried into the first batch, a tree like that which is carried; None where nothing is.
    Returns:
        the carried state.
    Raises:
        UnrolledError: the state is damaged or of another model.
    """
    path, (optimizer, averager, objectives) = saved_states(run)[-1], tools
    tensors = tree.load_tensors(path / STATE_TENSORS)
    if odd := tree.not_finite(tensors):
        raise UnrolledError(f"{path}: {shown(odd)} is not a finite number everywhere; {_REMEDY}.")
    own = {f"model.{name}": value for name, value in weights(model).items()}
    own |= {f"side.{name}": value for name, value in objectives.weights().items()}
    wanted, state, parameters, keys = dict(own), None, _parameters(optimizer), None
    if any(name.startswith("carried.") for name in tensors):
        state = initial
        wanted |= {f"carried.{name}": value for name, value in tree.flatten(state).items()}
    fits = all(name in tensors and _alike(tensors[name], value) for name, value in wanted.items())
    means = {name.removeprefix("average."): t for name, t in tensors.items() if name.startswith("average.")}
    like = {str(i): p for i, p in enumerate(averager.parameters)}
    fits = fits and all(
        (p := like.get(name.rpartition(".")[2])) is not None and _alike(value, p) for name, value in means.items()
    )
    fits = fits and len(means) % len(like) == 0
    for name, value in tensors.items():
        if name in wanted or name.startswith("average."):
            continue
        match = re.fullmatch(r"optimizer\.(\d+)\.(\w+)", name)
        fits = fits and match is not None and int(match[1]) < len(parameters)
        if not fits or match is None or match[2] not in (keys := keys or _state_keys(optimizer)):
            raise _foreign(path)
        if not _alike(value, keys[match[2]] if keys[match[2]].dim() == 0 else parameters[int(match[1])]):
            raise _foreign(path)
        # copied: a tensor mapped from a file may be aligned otherwise than one that torch allocated
        parameter = parameters[int(match[1])]
        optimizer.state[parameter][match[2]] = value.to(parameter.device, copy=True)
    if not fits or any(state and set(state) != set(keys or {}) for state in optimizer.state.values()):
        raise _foreign(path)
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(tensors[name])
    try:
        averager.restore(means, numbers)
    except (KeyError, ValueError) as error:
        raise _foreign(path) from error
    if state is None:
        return None
    named = {name: tensors[f"carried.{name}"].clone() for name in tree.flatten(state)}
    return tree.to(tree.unflatten(named, state), next(model.parameters()).device)


def _foreign(path: Path) -> UnrolledError:
    return UnrolledError(f"the training state {path} is damaged or of another model; {_REMEDY}.")


def _alike(value: Tensor, like: Tensor) -> bool:
    return value.shape == like.shape and value.dtype == like.dtype


def _state_keys(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimiser keeps of a parameter, found by a step of its own kind on a parameter of two numbers."""
    trial = copy.copy(optimizer)
    like = optimizer.param_groups[0]
    parameter = torch.nn.Parameter(torch.zeros(2, dtype=like["params"][0].dtype, device=like["params"][0].device))
    parameter.grad = torch.zeros_like(parameter)
    trial.param_groups, trial.state = [{**like, "params": [parameter]}], collections.defaultdict(dict)
    trial.step()
    return {key: value for key, value in trial.state[parameter].items() if isinstance(value, Tensor)}


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
