"""Ensembles from per-token files: nothing of the models is needed but the probability of every token.

A folder holds one part a split: ``valid/`` and ``test/``, each with one file a model (``NAME.tsv`` or ``NAME.tsv.gz``
as written by ``--per-token``, or ``NAME.txt`` or ``NAME.txt.gz`` with one probability a line), or ``valid.npz`` and
``test.npz`` with one array of probabilities a model. The plain formats are those of Herel and Mikolov (arXiv
2312.03735).
"""

import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unrolled.core import packed
from unrolled.core.bounded import UNREADABLE, bounded_lines, check_archive
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import regular_file
from unrolled.core.packed import open_packed
from unrolled.core.registry import cut
from unrolled.evaluate.bootstrap import BlockSums, Difference, paired_difference
from unrolled.evaluate.per_token import read_per_token

__all__ = ["Ensemble", "Figure", "Stream", "compare_files", "fit_ensemble", "fit_weights", "mix", "read_streams"]

_SPLITS = ("valid", "test")
_MOST_STEPS, _TOLERANCE = 20_000, 1e-13
_MOST_ARCHIVE = 4 << 30
_LEAST_MEAN = -700


class Stream(NamedTuple):
    """One model on one text. log_prob: (n,) float64, nats. ids: (n,) int64, or None where the file does not tell.
    first_position: of the first token in the split, None likewise. source: the file."""

    name: str
    log_prob: np.ndarray
    ids: np.ndarray | None
    first_position: int | None
    source: str


class Figure(NamedTuple):
    """perplexity: per token. interval: its 95 % block-bootstrap interval, None for a short text."""

    perplexity: float
    interval: tuple[float, float] | None


class Ensemble(NamedTuple):
    """What :func:`fit_ensemble` found.

    weights: by model, fitted on the validation split; None without one. members, uniform, fitted: split -> figures.
    against_best: the ensemble less the best member on the last split. log_prob: of the ensemble there, (n,).
    """

    tokens: dict[str, int]
    weights: dict[str, float] | None
    members: dict[str, dict[str, Figure]]
    uniform: dict[str, Figure]
    fitted: dict[str, Figure]
    best: str
    against_best: Difference
    log_prob: np.ndarray


def read_streams(folder: str | os.PathLike[str]) -> dict[str, list[Stream]]:
    """Split -> the streams of a folder, by name.

    Raises:
        UsageError: no such folder, or nothing in it. UnrolledError: a damaged file, or no probabilities.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give one that holds valid/ and test/ with one file a model.")
    found: dict[str, list[Stream]] = {}
    for split in _SPLITS:
        streams: list[Stream] = []
        if (folder / f"{split}.npz").exists():
            streams += _archive(folder / f"{split}.npz")
        if (folder / split).is_dir():
            files = sorted(path for path in (folder / split).iterdir() if _stem(path) is not None)
            streams += [_file(path) for path in files]
        if streams:
            found[split] = streams
    if not found:
        raise UsageError(
            f"{folder} has no per-token files; it needs valid/NAME.tsv and test/NAME.tsv (.tsv.gz, .txt), or valid.npz "
            "and test.npz."
        )
    return found


def fit_ensemble(folders: Sequence[str | os.PathLike[str]]) -> Ensemble:
    """Mix the models of some folders, with weights that are best for their validation text.

    The mixture is linear, p = sum of w_m p_m, and its weights are found by expectation maximisation, which reaches the
    optimum, as the likelihood is concave in them.

    Raises:
        UsageError: models that are not in every split, or streams of other tokens. UnrolledError: damaged files.
    """
    parts: dict[str, list[Stream]] = {}
    for folder in folders:
        for split, streams in read_streams(folder).items():
            parts.setdefault(split, []).extend(streams)
    names = [stream.name for stream in parts[next(iter(parts))]]
    for split, streams in parts.items():
        own = [stream.name for stream in streams]
        if len(set(own)) < len(own):
            twice = next(name for name in own if own.count(name) > 1)
            raise UsageError(f"two models are named {twice!r} in {split}; rename one of the files.")
        if set(own) != set(names):
            odd = sorted(set(own) ^ set(names))[0]
            raise UsageError(f"model {odd!r} is not in every split ({', '.join(parts)}); write its file there too.")
        _check_equal(streams)
        parts[split] = sorted(streams, key=lambda stream: names.index(stream.name))
    tables = {split: np.stack([s.log_prob for s in streams]) for split, streams in parts.items()}
    even = np.full(len(names), 1 / len(names))
    weights = fit_weights(tables["valid"]) if "valid" in tables else None
    last = list(tables)[-1]
    best = int(tables["valid" if weights is not None else last].mean(1).argmax())
    mixed = mix(tables[last], even if weights is None else weights)
    return Ensemble(
        {split: table.shape[1] for split, table in tables.items()},
        None if weights is None else dict(zip(names, weights.tolist(), strict=True)),
        {split: {n: _figure(row) for n, row in zip(names, table, strict=True)} for split, table in tables.items()},
        {split: _figure(mix(table, even)) for split, table in tables.items()},
        {} if weights is None else {split: _figure(mix(table, weights)) for split, table in tables.items()},
        names[best],
        paired_difference(-mixed, -tables[last][best]),
        mixed,
    )


def compare_files(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> Difference:
    """Two per-token files of the same tokens, compared by :func:`paired_difference`.

    Raises:
        UsageError: files that score different tokens. UnrolledError: damaged files.
    """
    one, other = (_file(Path(path)) for path in (first, second))
    _check_equal([one, other])
    return paired_difference(-one.log_prob, -other.log_prob)


def fit_weights(log_prob: np.ndarray) -> np.ndarray:
    """Weights (m,) of the linear mixture that gives the text the highest probability, by expectation maximisation.

    Args:
        log_prob: (m, n) nats of m models on n tokens.
    """
    # each token scaled by its best model: a factor that does not depend on the weights
    p = np.exp(log_prob - log_prob.max(0))
    weights, last = np.full(len(p), 1 / len(p)), -np.inf
    for _ in range(_MOST_STEPS):
        mixed = weights @ p
        gained = float(np.log(mixed).mean())
        weights = weights * (p @ (1 / mixed)) / p.shape[1]
        if gained - last < _TOLERANCE:
            break
        last = gained
    weights = weights / weights.sum()
    # steps are small near a corner and may end before it; no mixture may be worse than one of its models
    best = int(log_prob.mean(1).argmax())
    return weights if mix(log_prob, weights).mean() >= log_prob[best].mean() else np.eye(len(p))[best]


def mix(log_prob: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """log of the linear mixture, (n,). log_prob: (m, n); weights: (m,)."""
    top = log_prob.max(0)
    return np.log(weights @ np.exp(log_prob - top)) + top


def _figure(log_prob: np.ndarray) -> Figure:
    sums = BlockSums(1, len(log_prob))
    sums.add(0, -log_prob[None])
    interval = sums.interval()
    ends = None if interval is None else (float(np.exp(interval[0])), float(np.exp(interval[1])))
    return Figure(float(np.exp(-log_prob.mean())), ends)


def _check_equal(streams: list[Stream]) -> None:
    known = [stream for stream in streams if stream.ids is not None]
    for one in streams:
        if len(one.log_prob) != len(streams[0].log_prob):
            raise UsageError(
                f"{streams[0].source} has {len(streams[0].log_prob):,} tokens and {one.source} {len(one.log_prob):,}: "
                "they score different tokens; evaluate both with the same --first and corpus."
            )
    for one in known[1:]:
        same = one.first_position == known[0].first_position and np.array_equal(one.ids, known[0].ids)  # type: ignore
        if not same:
            raise UsageError(f"{known[0].source} and {one.source} score different tokens; they cannot be mixed.")


def _stem(path: Path) -> str | None:
    name = path.name.removesuffix(".gz")
    return name[:-4] if name.endswith((".tsv", ".txt")) else None


def _file(path: Path) -> Stream:
    name = _stem(path)
    if name is None:
        raise UsageError(f"{path} is not a per-token file: its name ends neither in .tsv nor in .txt (.gz).")
    if not path.exists():
        raise UsageError(f"{path} does not exist.")
    path = regular_file(path)
    if path.name.removesuffix(".gz").endswith(".tsv"):
        header, ids, log_prob = read_per_token(path)
        _check_mean(log_prob, path)
        return Stream(name, log_prob, ids, header.first_position, str(path))
    values = array("d")
    try:
        with open_packed(path) as file:
            for line in bounded_lines(file, path.stat().st_size):
                values.extend(map(float, line.split()))
    except (OSError, ValueError, *packed.BROKEN) as error:
        raise UnrolledError(f"{path} is not a file of one probability a line: {cut(str(error))}.") from error
    return Stream(name, _logarithms(np.frombuffer(values, np.float64), path), None, None, str(path))


def _archive(path: Path) -> list[Stream]:
    check_archive(path, _MOST_ARCHIVE)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            named = {name: _real(arrays[name]) for name in arrays.files}
    # An array may say that it is larger than its bytes, or than any memory.
    except (*UNREADABLE, OSError, MemoryError, TypeError) as error:
        raise UnrolledError(f"{path} is not an archive of arrays: it is damaged or of another kind.") from error
    return [Stream(n, _logarithms(v, path, n), None, None, f"{path} ({n})") for n, v in named.items()]


def _real(values: Any) -> np.ndarray:
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise ValueError("no numbers")
    return values.astype(np.float64)


def _logarithms(values: np.ndarray, path: Path, name: str = "") -> np.ndarray:
    where = f"{path} ({name})" if name else str(path)
    if values.ndim != 1 or not len(values):
        raise UnrolledError(f"{where} is not one column of probabilities.")
    wrong = np.flatnonzero(~((values > 0) & (values <= 1)))
    if len(wrong):
        value = values[wrong[0]]
        raise UnrolledError(f"{where}: value {wrong[0] + 1} is {value:g}, which is no probability above zero.")
    found = np.log(values)
    _check_mean(found, where)
    return found


def _check_mean(log_prob: np.ndarray, where: object) -> None:
    """Raises UnrolledError where a token has no probability at all, or the perplexity is too large for a number."""
    if np.isneginf(log_prob).any():
        place = int(np.isneginf(log_prob).argmax())
        raise UnrolledError(f"{where}: token {place + 1} has the probability zero; leave out this model.")
    with np.errstate(over="ignore"):
        if log_prob.mean() < _LEAST_MEAN:
            raise UnrolledError(f"{where} has a perplexity above e^{-_LEAST_MEAN}; leave out this model.")
