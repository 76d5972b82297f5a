"""Folders of hidden states of a text: how they are written and read."""

import contextlib
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from tokenize import TokenError
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from unrolled.core.config import VersionedConfig
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import atomic_folder, make_folder, sha256_file

__all__ = ["STORE", "Store", "StoreInfo", "check_model", "open_store", "put", "writing_store"]

STORE, _KEYS, _IDS, _BEGINS, _CLUSTERS = "store.json", "keys.npy", "ids.npy", "begins.npy", "clusters.npy"

# what numpy makes of a header that is no header
_ODD = (ValueError, EOFError, SyntaxError, TypeError, OverflowError, KeyError, IndexError, TokenError, RecursionError)


class StoreInfo(VersionedConfig):
    """What a store was made of."""

    kind: ClassVar[str] = "unrolled store"

    weights: str = Field(description="sha256 of the model's weights")
    tokenizer: str = Field(description="fingerprint of the tokenizer")
    text: str = Field(description="sha256 of the text")
    corpus: str = Field(description="name of the corpus")
    split: str = Field(description="split of the corpus")
    precision: str = Field(description="of the products that the states were made by")
    entries: int = Field(ge=1, description="hidden states")
    width: int = Field(ge=1, description="numbers in each")
    dtype: Literal["float16", "float32"] = Field(description="of the numbers")
    columns: int = Field(ge=1, description="parts of the text that were read side by side, each begun anew")
    clusters: int = Field(default=0, ge=0, description="groups of near states; 0: none")
    ids_sha256: str = Field(default="", description="sha256 of the file of tokens")


class Store(NamedTuple):
    """info: what it was made of. keys: (n, width), in its file. ids: (n,). begins: (b,). clusters: (n,) or None."""

    info: StoreInfo
    keys: np.ndarray
    ids: np.ndarray
    begins: np.ndarray
    clusters: np.ndarray | None


@contextlib.contextmanager
def writing_store(path: Path, info: StoreInfo) -> Iterator[tuple[np.ndarray, np.ndarray, Path]]:
    """A folder that appears whole at the end, or not at all.

    Yields keys (n, width) and ids (n,), both in files and to be filled, and the folder for ``begins`` and ``clusters``
    (see :func:`put`).

    Raises:
        UsageError: something is there already. UnrolledError: too little space.
    """
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists; name another folder with --out.")
    make_folder(path.parent)
    size = info.entries * (info.width * np.dtype(info.dtype).itemsize + 4)
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise UnrolledError(
            f"{path} needs {size / 1e9:.1f} GB and {free / 1e9:.1f} are free; free some, or give a limit."
        )
    with atomic_folder(path) as part:
        keys = np.lib.format.open_memmap(part / _KEYS, "w+", np.dtype(info.dtype), (info.entries, info.width))
        _reserve(part / _KEYS)
        ids = np.lib.format.open_memmap(part / _IDS, "w+", np.dtype(np.int32), (info.entries,))
        _reserve(part / _IDS)
        yield keys, ids, part
        keys.flush()
        ids.flush()
        del keys, ids
        info.model_copy(update={"ids_sha256": sha256_file(part / _IDS)}).save(part / STORE)


def put(part: Path, begins: np.ndarray, clusters: np.ndarray | None) -> None:
    """Write the smaller files of a store that is being written."""
    np.save(part / _BEGINS, begins.astype(np.int64))
    if clusters is not None:
        np.save(part / _CLUSTERS, clusters.astype(np.int32))


def open_store(folder: Path, identity: Mapping[str, str], vocab_size: int, width: int) -> Store:
    """A store, looked through.

    Args:
        identity: of the run that is going to use it, see :class:`unrolled.predict.Source`.
        vocab_size, width: of its model.
    Raises:
        UsageError: no store, or one of another model. UnrolledError: a damaged one.
    """
    if not (folder / STORE).is_file():
        raise UsageError(f"{folder} is no store of a text; make one with `unrolled store`.")
    info = StoreInfo.load(folder / STORE)
    check_model(folder, info.weights, info.tokenizer, identity)
    keys = _array(folder / _KEYS, info.dtype, (info.entries, info.width))
    ids = np.array(_array(folder / _IDS, "int32", (info.entries,)))
    begins = np.array(_array(folder / _BEGINS, "int64", None))
    clusters = np.array(_array(folder / _CLUSTERS, "int32", (info.entries,))) if info.clusters else None
    sound = info.width == width and sha256_file(folder / _IDS) == info.ids_sha256
    sound = sound and int(ids.min()) >= 0 and int(ids.max()) < vocab_size
    sound = sound and not len(begins[(begins < 0) | (begins >= info.entries)])
    sound = sound and (clusters is None or (clusters.min() >= 0 and clusters.max() < info.clusters))
    if not sound:
        raise UnrolledError(f"{folder} is damaged; make the store anew with `unrolled store`.")
    return Store(info, keys, ids, begins, clusters)


def check_model(folder: Path, weights: str, tokenizer: str, identity: Mapping[str, str]) -> None:
    """Raises UsageError where a store was made by another model than that of ``identity``."""
    if (weights, tokenizer) != (identity["weights"], identity["tokenizer"]):
        raise UsageError(
            f"{folder} was made by another model, whose hidden states mean something else; make one with "
            "`unrolled store` and this run."
        )


def _array(path: Path, dtype: str, shape: tuple[int, ...] | None) -> np.ndarray:
    """An array in its file. Raises UnrolledError where it is not of this type and shape; None: any of one dimension."""
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("version")
            found, by_columns, kind = np.lib.format.read_array_header_1_0(file)
            offset = file.tell()
        size = path.stat().st_size - offset
    except (*_ODD, OSError) as error:
        raise UnrolledError(f"{path} cannot be read; make the store anew with `unrolled store`.") from error
    fits = kind == np.dtype(dtype) and not by_columns
    fits = fits and (len(found) == 1 if shape is None else found == shape)
    if not fits or not size or size != math.prod(found) * kind.itemsize:
        raise UnrolledError(f"{path} is not the one of this store; make the store anew with `unrolled store`.")
    return np.memmap(path, kind, "r", offset, found)


def _reserve(path: Path) -> None:
    """Take the space of a file now: a page of a mapping that finds no space would end the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
