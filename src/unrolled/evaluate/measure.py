"""Evaluation over a split: every token once, in the order of the text, with the state carried throughout."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field

from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import atomic_write
from unrolled.core.group import Group, agreed
from unrolled.data import TokenSplit, Units
from unrolled.data.walk import Columns, Progress, windows
from unrolled.evaluate.bootstrap import BlockSums
from unrolled.evaluate.per_token import PerTokenHeader, PerTokenWriter
from unrolled.evaluate.result import EvalResult, Protocol
from unrolled.predict import Predictor, check_vocabulary

__all__ = ["EvalConfig", "evaluate_predictor"]

_BLOCK = 1 << 20


class EvalConfig(Config):
    """How a split is read (see docs/protocols.md)."""

    split: str = Field(default="test", description="split of the corpus; whole is all of a text of your own")
    window: int = Field(
        default=512,
        ge=1,
        description="tokens scored at once; never changes the figure, but for Monte-Carlo dropout, whose masks last "
        "one window",
    )
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
    reset: Literal["corpus", "lines"] = Field(
        default="corpus",
        description="where the state restarts: at the sentences or documents of a corpus that consists of them, or at "
        "every line besides",
    )
    denominator: Literal["scored", "fed"] = Field(
        default="scored",
        description="what nats are divided by: the tokens scored, or, with first = context, the tokens of the columns "
        "(AWD-LSTM's code; too good by 1 in the length of a column)",
    )
    limit: int | None = Field(default=None, ge=1, description="only the first so many tokens (absent: all)")


def evaluate_predictor(
    predictor: Predictor,
    split: TokenSplit,
    config: EvalConfig,
    progress: Progress | None = None,
    provenance: Mapping[str, Any] | None = None,
    per_token: str | os.PathLike[str] | None = None,
    group: Group | None = None,
) -> EvalResult:
    """Measure a predictor on a split.

    Nats are summed in float64. Where the corpus consists of sentences or documents (``split.starts``), the
    state restarts at each, and ``start_id`` is fed there.

    Args:
        predictor: a model (:class:`NeuralPredictor`) or anything else that predicts.
        split: the tokens, of the tokenizer that the predictor was made for.
        progress: hears of tokens scored, tokens to score, nats per token so far.
        provenance: plain JSON values for the record (corpus, tokenizer, model, step, ...); the split's name
            and the checksum of its text are added.
        per_token: write the token id and log-probability of every position to this file, see
            :class:`PerTokenWriter`; needs ``columns = 1``.
        group: processes that share the columns; each gets the whole result. Absent: this one scores them all.
    Raises:
        UsageError: more columns than tokens; nothing to score; ``first = "context"`` where the state restarts;
            ``denominator = "fed"`` without it; ``per_token`` with several columns; the
            text is one that the predictor ``holds``.
        UnrolledError: another vocabulary; predictions that are not numbers.
    """
    check_vocabulary(predictor, len(split.tables.words))
    if split.checksum in predictor.holds:
        raise UsageError(
            "the text that is measured is one that things are looked up in or were learned from, where each token "
            "finds itself; measure another, or make a store of another one."
        )
    columns = _columns(split, config)
    if per_token is not None and config.columns > 1:
        raise UsageError("a per-token file needs every token in order; evaluate with columns = 1.")
    record = _Record(
        Protocol(
            kind=predictor.kind,
            columns=config.columns,
            window=config.window,
            first=config.first,
            reset="lines" if config.reset == "lines" else "none" if split.starts is None else "starts",
            denominator=config.denominator,
            limit=config.limit,
            precision=predictor.precision,
            options=predictor.options,
        ),
        {**(provenance or {}), "split": config.split, "text_sha256": split.checksum},
    )
    if per_token is None:
        return _run(predictor, split, columns, record, progress, None, group or Group())
    path, results = Path(per_token), []
    header = PerTokenHeader(
        tokens=columns.length - columns.skip,
        first_position=columns.skip,
        ids_sha256=_ids_sha256(split, columns.skip, columns.length),
        protocol=record.protocol,
        provenance=record.provenance,
    )

    def write(part: Path) -> None:
        with PerTokenWriter(part, header, compress=path.suffix == ".gz") as writer:
            results.append(_run(predictor, split, columns, record, progress, writer, Group()))

    atomic_write(path, write)
    return results[0]


class _Record(NamedTuple):
    protocol: Protocol
    provenance: dict[str, Any]


def _run(
    predictor: Predictor,
    split: TokenSplit,
    columns: Columns,
    record: _Record,
    progress: Progress | None,
    writer: PerTokenWriter | None,
    group: Group,
) -> EvalResult:
    protocol, provenance = record
    count = len(columns.begins)
    own = columns._replace(begins=np.array_split(columns.begins, group.world)[group.rank])
    with agreed(group):
        nats, sums = _score(predictor, split, own, protocol, count, progress, writer)
    parts = group.gather((nats, sums))
    nats, sums = sum(part[0] for part in parts), BlockSums.joined([part[1] for part in parts])
    begins = columns.begins.tolist()
    units = Units(0, 0, 0, 0)
    for begin in begins:
        units = units + split.units(begin + columns.skip, begin + columns.length)
    counts = dict(zip(("words", "characters", "bytes"), units[1:], strict=True))
    extra = count * columns.skip if protocol.denominator == "fed" else 0
    return EvalResult(
        nats=nats,
        tokens=units.tokens,
        unscored=extra,
        **counts,
        interval=sums.interval(),
        protocol=protocol,
        provenance={**provenance, **({"told": predictor.told} if predictor.told else {})},
    )


def _score(
    predictor: Predictor,
    split: TokenSplit,
    columns: Columns,
    protocol: Protocol,
    count: int,
    progress: Progress | None,
    writer: PerTokenWriter | None,
) -> tuple[float, BlockSums]:
    """Nats of some of ``count`` columns, and their sums by block."""
    length = columns.length - columns.skip
    nats, done, sums = 0.0, 0, BlockSums(count, length, len(columns.begins))
    begins, first = columns.begins.tolist(), None
    if not begins:
        return nats, sums
    if columns.skip:
        tokens = np.concatenate([split.ids(begin, begin + 1) for begin in begins])
        first = torch.from_numpy(tokens).to(predictor.device)
    state = predictor.begin(len(begins), first)
    line_ends = split.tables.ends if protocol.reset == "lines" else None
    for position, ids, flags in windows(split, columns, protocol.window, line_ends):
        reset = None if flags is None else torch.from_numpy(flags).to(predictor.device)
        scores = predictor.window(state, torch.from_numpy(ids).to(predictor.device), reset)
        state, nll = scores.state, scores.nll.detach().double().cpu()
        part = float(nll.sum())
        if not np.isfinite(part):
            row, time = (int(i) for i in (~torch.isfinite(nll)).nonzero()[0])
            raise UnrolledError(
                f"token {begins[row] + position + time} has a log-probability that is not a finite "
                "number; the model's weights are damaged, or its training or adaptation diverged."
            )
        nats, done = nats + part, done + nll.numel()
        sums.add(position - columns.skip, nll.numpy())
        if writer is not None:
            writer.append(ids[0], (-nll[0]).numpy())
        if progress is not None:
            progress(done, len(begins) * length, nats / done)
    return nats, sums


def _columns(split: TokenSplit, config: EvalConfig) -> Columns:
    skip = int(config.first == "context")
    if skip and (split.starts is not None or config.reset == "lines"):
        raise UsageError(
            "first = context is a convention for one continuous text, and here the state restarts at every "
            "sentence, document or line; use first = scored."
        )
    if config.denominator == "fed" and not skip:
        raise UsageError("denominator = fed differs only where tokens are fed and not scored; use first = context.")
    return Columns.cut(split, config.columns, config.limit, skip)


def _ids_sha256(split: TokenSplit, start: int, stop: int) -> str:
    """sha256 of the scored ids as little-endian int64: equal for files that score the same tokens."""
    digest = hashlib.sha256()
    for low in range(start, stop, _BLOCK):
        digest.update(split.ids(low, min(low + _BLOCK, stop)).astype("<i8").tobytes())
    return digest.hexdigest()
