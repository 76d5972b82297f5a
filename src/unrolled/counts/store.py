"""N-gram models on disk: a folder with ``ngrams.safetensors`` (the tables) and ``ngrams.json`` (what they mean)."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from unrolled.core.errors import UnrolledError
from unrolled.core.files import atomic_write, make_folder, regular_file, sha256_file
from unrolled.core.tree import check_tensor_header
from unrolled.counts.config import NgramConfig
from unrolled.counts.ngrams import NgramModel, Table
from unrolled.counts.skip import SkipModel, SkipTable, masks_of

__all__ = ["COUNTS", "check_tables", "load_ngrams", "save_ngrams"]

_TABLES, _CONFIG = COUNTS = "ngrams.safetensors", "ngrams.json"
_ROUNDING = 1e-6
"""How far rounding may lift a log-probability above 0."""


def save_ngrams(model: NgramModel | SkipModel, folder: str | os.PathLike[str]) -> None:
    """Write a model into a folder, which is made where it is missing. Raises UnrolledError where that fails."""
    path = make_folder(folder)
    tensors: dict[str, np.ndarray] = {}
    for order, table in enumerate(model.tables, start=1):  # of skip n-grams the number of the pattern, from 1
        # The format takes memory as it lies, so views are copied.
        tensors.update({f"{order}.{name}": np.ascontiguousarray(value) for name, value in table._asdict().items()})
    atomic_write(path / _TABLES, lambda part: save_file(tensors, part))
    # The checksum ties the two files together: a model that was half overwritten is refused.
    model.config.model_copy(update={"tables_sha256": sha256_file(path / _TABLES)}).save(path / _CONFIG)


def load_ngrams(folder: str | os.PathLike[str]) -> NgramModel | SkipModel:
    """Read what :func:`save_ngrams` wrote, and verify it.

    Raises:
        UnrolledError: missing, damaged, of another kind or of a newer release.
    """
    path = Path(folder)
    config = NgramConfig.load(path / _CONFIG)
    file = regular_file(path / _TABLES)
    if sha256_file(file) != config.tables_sha256:
        raise UnrolledError(f"{file} does not belong to {_CONFIG} beside it or is damaged; write the model again.")
    try:
        check_tensor_header(file)
        tensors = load_file(file)
    # types that numpy lacks, such as bfloat16, are a KeyError or TypeError
    except (SafetensorError, ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise UnrolledError(f"{file} is not a readable safetensors file: it is damaged or of another kind.") from error
    skips = config.estimation is not None and config.estimation.skips
    if config.estimation is not None and skips and config.order != config.estimation.order:
        raise UnrolledError(f"{path / _CONFIG} names two orders: it is damaged; write the model again.")
    kind, many = (SkipTable, len(masks_of(config))) if skips else (Table, config.order)
    if set(tensors) != {f"{number}.{name}" for number in range(1, many + 1) for name in kind._fields}:
        raise UnrolledError(f"{file} does not hold the tables of {config.order} order(s); write the model again.")
    if skips:
        parts = (SkipTable(*(tensors[f"{k}.{name}"] for name in SkipTable._fields)) for k in range(1, many + 1))
        made = SkipModel(config, tuple(parts))
        check_skips(made, file)
        return made
    tables = [Table(*(tensors[f"{k}.{name}"] for name in Table._fields)) for k in range(1, config.order + 1)]
    model = NgramModel(config, tuple(tables))
    check_tables(model, file)
    return model


def check_skips(model: SkipModel, source: Any) -> None:
    """Raises UnrolledError, naming ``source``, unless the tables are what :class:`SkipTable` says."""
    size, many = model.vocab_size, {0: 1}
    for mask, (contexts, keys, log_prob, backoff) in zip(masks_of(model.config), model.tables, strict=True):
        inner = mask - (1 << (mask.bit_length() - 1)) if mask else 0
        limits = ((contexts, many[inner] * size if mask else 1), (keys, len(contexts) * size))
        sound = (
            all(
                value.ndim == 1
                and value.dtype == np.int64
                and bool((np.diff(value) > 0).all())
                and (not len(value) or 0 <= value[0] <= value[-1] < limit)
                for value, limit in limits
            )
            and (mask > 0 or len(contexts) == 1)
            and log_prob.dtype == backoff.dtype == np.float64
            and (log_prob.shape, backoff.shape) == (keys.shape, contexts.shape)
            and bool(np.isfinite(log_prob).all() and np.isfinite(backoff).all())
            and (not len(keys) or log_prob.max() < _ROUNDING)
        )
        if not sound:
            raise UnrolledError(f"the skip n-grams of pattern {mask} in {source} are damaged; write the model again.")
        many[mask] = len(contexts)


def check_tables(model: NgramModel, source: Any) -> None:
    """Raises UnrolledError, naming ``source``, unless the tables are what :class:`Table` says."""
    size, contexts = model.vocab_size, 1
    for order, (keys, log_prob, backoff) in enumerate(model.tables, start=1):
        expected = np.zeros(0) if order == model.config.order else log_prob
        sound = (
            keys.ndim == 1
            and keys.dtype == np.int64
            and log_prob.dtype == backoff.dtype == np.float64
            and log_prob.shape == keys.shape
            and backoff.shape == expected.shape
            and (order > 1 or (len(keys) == size and np.array_equal(keys, np.arange(size))))
            and bool((np.diff(keys) > 0).all())
            and (not len(keys) or 0 <= keys[0] <= keys[-1] < contexts * size)
            and bool(np.isfinite(log_prob).all() and np.isfinite(backoff).all())
            and (not len(keys) or log_prob.max() < _ROUNDING)
        )
        if not sound:
            raise UnrolledError(f"the n-grams of order {order} in {source} are damaged; write the model again.")
        contexts = len(keys)
