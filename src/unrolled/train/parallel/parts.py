"""A training state in parts: one safetensors file a process, and an index that says where each row of a tensor is.

Written by a group of one size, read by one of any other: each process reads the rows that it needs.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unrolled.core import tree
from unrolled.core.errors import UnrolledError
from unrolled.core.files import read_json, sha256_file, writing
from unrolled.core.group import Group

__all__ = ["INDEX", "Piece", "read_parts", "write_index", "write_part"]

INDEX = "index.json"
_KIND, _VERSION = "unrolled training state", 1
_Count = Annotated[int, Field(ge=0, le=2**53)]


class Piece(NamedTuple):
    """Rows of a tensor. value: those that are here. first: number of the first one. rows: of all processes; None for a
    tensor without dimensions."""

    value: Tensor
    first: int = 0
    rows: int | None = None


class _Place(BaseModel):
    model_config = ConfigDict(extra="forbid")
    part: _Count
    first: _Count
    rows: _Count


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")
    shape: list[_Count]
    places: list[_Place]


class _Index(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["unrolled training state"]
    version: Literal[1]
    parts: list[tuple[str, str]]
    tensors: dict[str, _Entry]


def write_part(folder: Path, group: Group, pieces: Mapping[str, Piece]) -> dict[str, Any]:
    """Write this process's part; returns what :func:`write_index` needs of it. Raises UnrolledError for a full disk."""
    name = f"part-{group.rank:05d}-of-{group.world:05d}.safetensors"
    held = {key: piece.value.detach().contiguous().cpu() for key, piece in pieces.items() if piece.value.numel()}
    with writing(folder / name):
        save_file(held, folder / name)
    return {
        "file": (name, sha256_file(folder / name)),
        "tensors": {
            key: (
                list(value.shape) if (rows := pieces[key].rows) is None else [rows, *value.shape[1:]],
                {"part": group.rank, "first": pieces[key].first, "rows": len(value) if value.dim() else 1},
            )
            for key, value in held.items()
        },
    }


def write_index(folder: Path, written: list[dict[str, Any]]) -> None:
    """Write the index of all parts. written: what :func:`write_part` gave in each process, in their order."""
    tensors: dict[str, dict[str, Any]] = {}
    for part in written:
        for name, (shape, place) in part["tensors"].items():
            tensors.setdefault(name, {"shape": shape, "places": []})["places"].append(place)
    value = {"kind": _KIND, "version": _VERSION, "parts": [part["file"] for part in written], "tensors": tensors}
    (folder / INDEX).write_text(json.dumps(value) + "\n", encoding="utf-8")


def read_parts(folder: Path, group: Group, wanted: Callable[[str, int], tuple[int, int]]) -> dict[str, Tensor]:
    """The rows that this process wants of every tensor of a state.

    Args:
        wanted: gives first row and the one after the last, of a tensor's name and number of rows.
    Raises:
        UnrolledError: the state is damaged.
    """
    index = _read_index(folder)
    for number, (name, digest) in enumerate(index.parts):
        if number % group.world == group.rank and _sha256(folder / name) != digest:
            raise _damaged(folder / name)
    files: dict[int, Any] = {}
    found: dict[str, Tensor] = {}
    try:
        for name, entry in index.tensors.items():
            low, high = wanted(name, entry.shape[0]) if entry.shape else (0, 1)
            pieces = []
            for place in sorted(entry.places, key=lambda place: place.first):
                first, last = max(low, place.first), min(high, place.first + place.rows)
                if first >= last:
                    continue
                if place.part not in files:
                    path = folder / index.parts[place.part][0]
                    tree.check_tensor_header(path)
                    files[place.part] = safe_open(path, framework="pt").__enter__()
                part = files[place.part]
                rows = part.get_slice(name)[first - place.first : last - place.first] if entry.shape else None
                pieces.append(part.get_tensor(name) if rows is None else rows)
            value = torch.cat(pieces) if len(pieces) > 1 else pieces[0] if pieces else torch.zeros(0, *entry.shape[1:])
            if entry.shape and list(value.shape) != [max(0, high - low), *entry.shape[1:]]:
                raise _damaged(folder)
            found[name] = value
    except (SafetensorError, ValueError, OSError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder) from error
    finally:
        for file in files.values():
            file.__exit__(None, None, None)
    return found


def _read_index(folder: Path) -> _Index:
    try:
        index = _Index.model_validate(read_json(folder / INDEX))
    except ValidationError as error:
        raise _damaged(folder / INDEX) from error
    names = [f"part-{i:05d}-of-{len(index.parts):05d}.safetensors" for i in range(len(index.parts))]
    if [name for name, _ in index.parts] != names:  # never a path that leads elsewhere
        raise _damaged(folder / INDEX)
    return index


def _sha256(path: Path) -> str | None:
    return sha256_file(path) if path.is_file() else None


def _damaged(path: Path) -> UnrolledError:
    return UnrolledError(
        f"the training state {path} is damaged; train anew with another --out (the best weights can still be "
        "evaluated)."
    )
