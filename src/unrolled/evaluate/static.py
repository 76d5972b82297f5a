"""Evaluation over a split: every token once, in the order of the text, with the state carried throughout."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field

from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import atomic_write
from unrolled.data import TokenSplit, Units
from unrolled.evaluate.per_token import PerTokenHeader, PerTokenWriter
from unrolled.evaluate.predictor import Predictor, check_vocabulary
from unrolled.evaluate.result import EvalResult, Protocol

__all__ = ["EvalConfig", "Progress", "evaluate_static"]

_BLOCK = 1 << 20

Progress = Callable[[int, int, float], None]
"""Called after each window with the tokens scored, the tokens to score, and the nats per token so far."""


class EvalConfig(Config):
    """How a split is evaluated (see docs/protocols.md)."""

    split: str = Field(default="test", description="split of the corpus")
    window: int = Field(default=512, ge=1, description="tokens scored at once; never changes the figure")
    columns: int = Field(
        default=1,
        ge=1,
        description="parallel columns, each begun without a past and the tail left out; more than 1 is "
        "another, faster protocol with a slightly worse figure",
    )
    first: Literal["scored", "context"] = Field(
        default="scored",
        description="scored: the start symbol is fed and every token is scored; context: the first token of "
        "each column is fed and not scored (the published variant of Zaremba, AWD-LSTM and MoS)",
    )
    limit: int | None = Field(default=None, ge=1, description="only the first so many tokens (absent: all)")


class _Plan(NamedTuple):
    """Where each column begins in the split, tokens per column, and tokens at its start that are context."""

    begins: np.ndarray
    length: int
    skip: int


def evaluate_static(
    predictor: Predictor,
    split: TokenSplit,
    config: EvalConfig,
    progress: Progress | None = None,
    provenance: Mapping[str, Any] | None = None,
    per_token: str | os.PathLike[str] | None = None,
) -> EvalResult:
    """Measure a predictor on a split.

    Nats are summed in float64. Where the corpus consists of sentences or documents (``split.starts``), the
    state restarts at each, and ``start_id`` is fed there.

    Args:
        predictor: a model (:class:`NeuralPredictor`) or anything else that predicts.
        split: the tokens, of the tokenizer that the predictor was made for.
        progress: see :data:`Progress`.
        provenance: plain JSON values for the record (corpus, tokenizer, model, step, ...); the split's name
            and the checksum of its text are added.
        per_token: write the token id and log-probability of every position to this file, see
            :class:`PerTokenWriter`; needs ``columns = 1``.
    Raises:
        UsageError: more columns than tokens; nothing to score; ``first = "context"`` for a corpus with
            restarts; ``per_token`` with several columns.
        UnrolledError: another vocabulary; predictions that are not numbers.
    """
    check_vocabulary(predictor, len(split.tables.words))
    plan = _plan(split, config)
    if per_token is not None and config.columns > 1:
        raise UsageError("a per-token file needs every token in order; evaluate with columns = 1.")
    record = _Record(
        Protocol(
            kind=predictor.kind,
            columns=config.columns,
            window=config.window,
            first=config.first,
            reset="none" if split.starts is None else "starts",
            limit=config.limit,
            precision=predictor.precision,
            options=predictor.options,
        ),
        {**(provenance or {}), "split": config.split, "text_sha256": split.checksum},
    )
    if per_token is None:
        return _run(predictor, split, config.window, plan, record, progress, None)
    path, results = Path(per_token), []
    header = PerTokenHeader(
        tokens=plan.length - plan.skip,
        first_position=plan.skip,
        ids_sha256=_ids_sha256(split, plan.skip, plan.length),
        protocol=record.protocol,
        provenance=record.provenance,
    )

    def write(part: Path) -> None:
        with PerTokenWriter(part, header, compress=path.suffix == ".gz") as writer:
            results.append(_run(predictor, split, config.window, plan, record, progress, writer))

    atomic_write(path, write)
    return results[0]


class _Record(NamedTuple):
    protocol: Protocol
    provenance: dict[str, Any]


def _run(
    predictor: Predictor,
    split: TokenSplit,
    window: int,
    plan: _Plan,
    record: _Record,
    progress: Progress | None,
    writer: PerTokenWriter | None,
) -> EvalResult:
    nats, done, wanted = 0.0, 0, len(plan.begins) * (plan.length - plan.skip)
    for position, ids, nll in _windows(predictor, split, window, plan):
        part = float(nll.sum())
        if not np.isfinite(part):
            row, time = (int(i) for i in (~torch.isfinite(nll)).nonzero()[0])
            raise UnrolledError(
                f"token {int(plan.begins[row]) + position + time} has a log-probability that is not a finite "
                "number; the model's weights are damaged, or its training diverged."
            )
        nats, done = nats + part, done + nll.numel()
        if writer is not None:
            writer.append(ids[0], (-nll[0]).numpy())
        if progress is not None:
            progress(done, wanted, nats / done)
    units = Units(0, 0, 0, 0)
    for begin in plan.begins.tolist():
        units = units + split.units(begin + plan.skip, begin + plan.length)
    counts = dict(zip(("words", "characters", "bytes"), units[1:], strict=True))
    protocol, provenance = record
    return EvalResult(nats=nats, tokens=units.tokens, **counts, protocol=protocol, provenance=provenance)


def _windows(
    predictor: Predictor, split: TokenSplit, window: int, plan: _Plan
) -> Iterator[tuple[int, np.ndarray, torch.Tensor]]:
    """Per window: position in the columns, ids and nats (columns, time); nats float64 on the CPU."""
    columns = len(plan.begins)
    first = None
    if plan.skip:
        tokens = np.concatenate([split.ids(begin, begin + 1) for begin in plan.begins.tolist()])
        first = torch.from_numpy(tokens).to(predictor.device)
    state = predictor.begin(columns, first)
    for low in range(plan.skip, plan.length, window):
        high = min(low + window, plan.length)
        ids = np.stack([split.ids(begin + low, begin + high) for begin in plan.begins.tolist()])
        reset = _resets(split.starts, plan.begins + low, high - low)
        flags = None if reset is None else torch.from_numpy(reset).to(predictor.device)
        scores = predictor.window(state, torch.from_numpy(ids).to(predictor.device), flags)
        state = scores.state
        yield low, ids, scores.nll.detach().double().cpu()


def _resets(starts: np.ndarray | None, begins: np.ndarray, time: int) -> np.ndarray | None:
    """Which of the tokens begin..begin+time-1 of each column begin a text; None when none does."""
    if starts is None:
        return None
    reset = np.zeros((len(begins), time), bool)
    for row, begin in zip(reset, begins.tolist(), strict=True):
        low, high = np.searchsorted(starts, [begin, begin + time])
        row[starts[low:high] - begin] = True
    return reset if reset.any() else None


def _plan(split: TokenSplit, config: EvalConfig) -> _Plan:
    skip = int(config.first == "context")
    if skip and split.starts is not None:
        raise UsageError(
            "first = context is a convention for one continuous text, and this corpus restarts at every "
            "sentence or document; use first = scored."
        )
    total = len(split) if config.limit is None else min(config.limit, len(split))
    length = total // config.columns
    if length <= skip:
        raise UsageError(
            f"{total} tokens of the {config.split} split are too few for {config.columns} column(s); "
            "use fewer columns or more text."
        )
    return _Plan(np.arange(config.columns, dtype=np.int64) * length, length, skip)


def _ids_sha256(split: TokenSplit, start: int, stop: int) -> str:
    """sha256 of the scored ids as little-endian int64: equal for files that score the same tokens."""
    digest = hashlib.sha256()
    for low in range(start, stop, _BLOCK):
        digest.update(split.ids(low, min(low + _BLOCK, stop)).astype("<i8").tobytes())
    return digest.hexdigest()
