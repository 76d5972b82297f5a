"""The training state on disk: everything that makes a resumed run equal to an uninterrupted one."""

import collections
import contextlib
import copy
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from unrolled.core import spread, tree
from unrolled.core.errors import UnrolledError
from unrolled.core.files import atomic_folder, make_folder, read_json
from unrolled.core.group import agreed, current
from unrolled.core.random import Shards
from unrolled.core.registry import shown
from unrolled.runs import CONFIG, STATE_TENSORS, STATES, saved_states, weights
from unrolled.train.config import ExperimentConfig
from unrolled.train.parallel.parts import INDEX, Piece, read_parts, write_index, write_part
from unrolled.train.progress import Progress
from unrolled.train.tools import Tools

__all__ = ["Kept", "exists", "read_progress", "restore", "save", "sweep"]

_PROGRESS = "progress.json"
_REMEDY = "train anew with another --out (the best weights can still be evaluated)"


def exists(run: Path) -> bool:
    """Whether the run has a training state."""
    return bool(saved_states(run))


class Kept(NamedTuple):
    """What a training state keeps. carried: None where nothing is. shards: those whose rows ``carried`` has."""

    model: nn.Module
    tools: Tools
    carried: Any
    shards: Shards | None = None


def save(run: Path, kept: Kept, progress: Progress) -> None:
    """Write one training state as a whole and drop the older ones; in a group each process writes its part.

    States are numbered in the order of saving. A folder appears under its number only when every file in it is on
    disk; a process killed at any moment leaves the state before or the state after.
    """
    group, tensors, old = current(), _tensors(kept), []
    with contextlib.ExitStack() as stack:
        part = None
        with agreed():
            if group.main:
                folder, old = make_folder(run / STATES), saved_states(run)
                number = int(old[-1].name) + 1 if old else 0
                part = stack.enter_context(atomic_folder(folder / f"{number:09d}"))
        if group.world == 1:
            assert part is not None
            # plain writes: the folder as a whole is what is atomic and flushed
            held = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
            save_file(held, part / STATE_TENSORS)
        else:
            part = run / STATES / group.first("" if part is None else part.name)
            with agreed():
                written = write_part(part, group, dict(_pieces(kept, tensors)))
            parts = group.gather(written)
            if group.main:
                write_index(part, parts)
        if group.main:
            (part / _PROGRESS).write_text(progress.model_dump_json(indent=2) + "\n", encoding="utf-8")
    group.wait()
    for path in old:
        shutil.rmtree(path, ignore_errors=True)


def _pieces(kept: Kept, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Piece]]:
    """What this process writes of a state: its rows of what is spread or carried, and the first one all else."""
    group = current()
    for name, value in tensors.items():
        if name.startswith("carried.") and kept.shards is not None:
            rows = len(value) // len(kept.shards.own) * kept.shards.count
            yield name, Piece(value, kept.shards.part(rows).start, rows)
        elif spread.is_spread(value):
            yield name, Piece(spread.local(value), spread.span(value)[0], len(value))
        elif group.main:
            yield name, Piece(value, 0, len(value) if value.dim() else None)


def sweep(run: Path) -> None:
    """Remove what a killed process left half written. Only for the process that has claimed the run."""
    for part in (*run.glob(".*.part"), *(run / STATES).glob(".*.part")):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def _tensors(kept: Kept) -> dict[str, Tensor]:
    """The tensors of a training state: ``model.<parameter>``, ``side.<objective>.<parameter>``,
    ``optimizer.<number>.<key>``, ``average.<name>.<number>``, ``carried.<path>``."""
    model, tools, carried, _ = kept
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


def restore(run: Path, kept: Kept, numbers: dict[str, float], initial: Any) -> Any:
    """Put the newest training state of a run into a model, an optimiser and an averager.

    Args:
        numbers: the averager's.
        initial: what is carried into the first batch, a tree like that which is carried; None where nothing is.
    Returns:
        the carried state.
    Raises:
        UnrolledError: the state is damaged or of another model.
    """
    path, (optimizer, averager, objectives, _) = saved_states(run)[-1], kept.tools
    tensors = _read(path, kept)
    if odd := tree.not_finite(tensors):
        raise UnrolledError(f"{path}: {shown(odd)} is not a finite number everywhere; {_REMEDY}.")
    own = {f"model.{name}": value for name, value in weights(kept.model).items()}
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
        parameter, scalar = parameters[int(match[1])], keys[match[2]].dim() == 0
        if not _alike(value, keys[match[2]] if scalar else parameter):
            raise _foreign(path)
        # copied: a tensor mapped from a file may be aligned otherwise than one that torch allocated
        copied = value.to(parameter.device, copy=True)
        optimizer.state[parameter][match[2]] = copied if scalar else spread.like(copied, parameter)
    if not fits or any(state and set(state) != set(keys or {}) for state in optimizer.state.values()):
        raise _foreign(path)
    for name, value in own.items():
        spread.copy_rows(value, tensors[name])
    try:
        numbered = {name: spread.like(value, like[name.rpartition(".")[2]]) for name, value in means.items()}
        averager.restore(numbered, numbers)
    except (KeyError, ValueError) as error:
        raise _foreign(path) from error
    if state is None:
        return None
    named = {name: tensors[f"carried.{name}"].clone() for name in tree.flatten(state)}
    return tree.to(tree.unflatten(named, state), next(kept.model.parameters()).device)


def _read(path: Path, kept: Kept) -> dict[str, Tensor]:
    """The tensors of a state, or those rows of them that this process holds."""
    of = {f"model.{name}": value for name, value in weights(kept.model).items()}
    parameters, averaged = _parameters(kept.tools.optimizer), kept.tools.averager.parameters

    def wanted(name: str, rows: int) -> tuple[int, int]:
        kind, _, rest = name.partition(".")
        if kind == "carried":
            part = range(rows) if kept.shards is None else kept.shards.part(rows)
            return part.start, part.stop
        number = rest.partition(".")[0] if kind == "optimizer" else rest.rpartition(".")[2]
        held = {"optimizer": parameters, "average": averaged}.get(kind, [])
        owner = of.get(name)
        if number.isdecimal() and int(number) < len(held):
            owner = held[int(number)]
        return spread.span(owner) if owner is not None and spread.is_spread(owner) else (0, rows)

    if (path / INDEX).exists():
        return read_parts(path, current(), wanted)
    found = tree.load_tensors(path / STATE_TENSORS)
    spans = {name: wanted(name, len(value)) for name, value in found.items() if value.dim()}
    return {name: value[slice(*spans[name])] if name in spans else value for name, value in found.items()}


def _foreign(path: Path) -> UnrolledError:
    return UnrolledError(f"the training state {path} is damaged or of another model; {_REMEDY}.")


def _alike(value: Tensor, like: Tensor) -> bool:
    like = spread.local(like)
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
