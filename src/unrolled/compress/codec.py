"""Lossless compression by any predictor: the text costs what an evaluation of it says, in bits.

One loop (:func:`_walk`) serves both sides, so that they predict in exactly the same way: in steps of one token, all
lanes at once, whatever faster form the predictor may have. That is what makes a predictor that adapts while it reads
usable: the decoder has observed the same tokens at every step.
"""

import json
import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field

from unrolled.compress import agreement, ans, container, texts
from unrolled.compress.frequencies import intervals, quantise, total_bits
from unrolled.compress.plan import MOST_LANES, Plan, most_lanes, room
from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import atomic_write
from unrolled.data.walk import Progress
from unrolled.predict import Predictor, check_vocabulary
from unrolled.tokenizer import Tokenizer

__all__ = ["CompressConfig", "Sizes", "compress", "compress_file", "decompress", "decompress_file"]

_REPORT = 64


class CompressConfig(Config):
    """How a text is compressed; the file records it."""

    lanes: int = Field(
        default=16,
        ge=1,
        le=MOST_LANES,
        description="parts of the text that are read side by side: faster, and larger by what each part costs that "
        "begins without a past; at most 8388608 / V, or 1024, whichever is more",
    )
    lane_tokens: int = Field(
        default=4096, ge=1, description="tokens that a lane holds at least; a shorter text gets fewer lanes"
    )
    check_every: int = Field(
        default=32768, ge=1, description="tokens between two checksums (4 bytes each) that notice a wrong decoding"
    )


class Sizes(NamedTuple):
    """bytes: of the text. coded: bytes of the compressed file. tokens: of the text."""

    bytes: int
    coded: int
    tokens: int


def compress(
    data: bytes,
    predictor: Predictor,
    tokenizer: Tokenizer,
    config: CompressConfig | None = None,
    progress: Progress | None = None,
    identity: str | None = None,
) -> bytes:
    """The compressed form of a text, with all that :func:`decompress` needs to know, but for the model.

    Args:
        data: any bytes with a tokenizer of all 256 bytes; else text that the tokenizer can give back exactly.
        predictor: a model, adapting or not, which is restored first. Each lane begins without a past, and nothing
            restarts in it.
        tokenizer: the one that the predictor was made for.
        config: default: 16 lanes.
        progress: see :data:`unrolled.evaluate.Progress`.
        identity: names the model in the file; default: the checksum of the weights of ``predictor.model``.
    Raises:
        UsageError: the text would not come back whole; no identity, and the predictor has no weights.
        UnrolledError: tokenizer and predictor differ in vocabulary; a prediction is not finite.
    """
    config = config or CompressConfig()
    check_vocabulary(predictor, tokenizer.vocab_size)
    predictor.restore()  # before its weights are named in the header
    ids = texts.to_ids(data, tokenizer)
    lanes = max(1, min(config.lanes, len(ids) // config.lane_tokens, most_lanes(predictor.vocab_size)))
    plan = Plan(len(ids), lanes, total_bits(predictor.vocab_size), config.check_every)
    header = {
        "model": agreement.identity(predictor, identity),
        "tokenizer": tokenizer.fingerprint(),
        "kind": predictor.kind,
        "options": _plain(predictor.options),
        "start_id": predictor.start_id,
        "bytes": len(data),
        "sha256": texts.sha256(data),
        **plan._asdict(),
        "threads": torch.get_num_threads(),
        "arithmetic": agreement.arithmetic(predictor),
        "probe": agreement.probe(predictor, lanes, plan.bits),
    }
    checks = list[int]()
    starts, lengths = (np.zeros(plan.tokens, np.uint32) for _ in range(2))

    def note(step: int, table: np.ndarray) -> np.ndarray:
        own, now = ids[plan.places(step)], slice(step * lanes, step * lanes + len(table))
        starts[now], lengths[now] = intervals(table, own)
        return own

    _walk(predictor, plan, note, lambda _, crc: checks.append(crc), progress)
    return container.pack(header, checks, ans.encode(starts, lengths, plan.bits))


def decompress(
    blob: bytes,
    predictor: Predictor,
    tokenizer: Tokenizer,
    progress: Progress | None = None,
    identity: str | None = None,
) -> bytes:
    """The text that :func:`compress` was given.

    It computes with as many threads as the compressor did, and puts the number back.

    Args:
        predictor, tokenizer, identity: the same as when compressing. progress: as there.
    Raises:
        UnrolledError: the file is damaged, cut short or of a newer release; another model, tokenizer or protocol;
            this machine computes other probabilities than the one that compressed.
    """
    header, checks, coded = container.unpack(blob)
    predictor.restore()
    _check_parts(header, predictor, tokenizer, agreement.identity(predictor, identity))
    plan = Plan(header.tokens, header.lanes, header.bits, header.check_every)
    ids = room(plan, predictor.vocab_size, header.words)
    decoder = ans.Decoder(coded, plan.bits)
    with agreement.with_threads(header.threads):
        differs = agreement.differences(header.arithmetic, agreement.arithmetic(predictor))
        if agreement.probe(predictor, plan.lanes, plan.bits) != header.probe:
            raise UnrolledError(
                "this machine computes other probabilities than the one that compressed the file "
                f"({differs or 'no recorded difference'}); decompress it there, or with the same versions "
                "on such a machine."
            )
        lost = UnrolledError(
            "the decoded text went wrong on the way, because this machine computes other probabilities than the one "
            f"that compressed the file ({differs or 'no recorded difference'}); nothing was kept; decompress it there."
        )

        def read(step: int, table: np.ndarray) -> np.ndarray:
            found = decoder.take(table)
            if found is None:
                raise lost
            ids[plan.places(step)] = found
            return found

        def check(number: int, crc: int) -> None:
            if number >= len(checks) or crc != checks[number]:
                raise lost

        _walk(predictor, plan, read, check, progress)
    data = texts.to_bytes(ids, tokenizer)
    if not decoder.finished() or len(data) != header.bytes or texts.sha256(data) != header.sha256:
        raise lost
    return data


def _walk(
    predictor: Predictor,
    plan: Plan,
    pick: Callable[[int, np.ndarray], np.ndarray],
    check: Callable[[int, int], None],
    progress: Progress | None,
) -> None:
    """Predict, quantise, code and observe, step by step: the one loop of both sides.

    Args:
        pick: takes the step and the tables (lanes that take part, V); returns their ids.
        check: takes the number of a check and the CRC-32 of all ids so far, in the order of coding.
    """
    state, crc, done, nats = predictor.begin(plan.lanes), 0, 0, 0.0
    total, between = plan.bits * np.log(2), plan.between
    for step in range(plan.steps):
        table = quantise(predictor.predict(state).log_prob, plan.bits)[: plan.active(step)]
        ids = pick(step, table)
        crc, done = zlib.crc32(ids.astype("<u4").tobytes(), crc), done + len(ids)
        nats += float((total - np.log(table[np.arange(len(ids)), ids])).sum())
        if (step + 1) % between == 0:
            check((step + 1) // between - 1, crc)
        last = step == plan.steps - 1
        if progress is not None and (last or (step + 1) % _REPORT == 0):
            progress(done, plan.tokens, nats / done)
        if not last:
            state = predictor.observe(state, torch.from_numpy(ids).to(predictor.device))


def _check_parts(header: container.Header, predictor: Predictor, tokenizer: Tokenizer, model: str) -> None:
    check_vocabulary(predictor, tokenizer.vocab_size)
    if header.model != model:
        raise UnrolledError(
            f"the file was compressed with another model (its identity begins with {header.model[:12]!r}, that of "
            f"this one with {model[:12]!r}); give the model that compressed it."
        )
    if header.tokenizer != tokenizer.fingerprint():
        raise UnrolledError("the file was compressed with another tokenizer; give the one that compressed it.")
    there = header.kind, header.options, header.start_id, header.bits
    here = predictor.kind, _plain(predictor.options), predictor.start_id, total_bits(predictor.vocab_size)
    if there != here:
        kind, options = agreement.brief(repr(header.kind)), agreement.brief(header.options)
        raise UnrolledError(
            f"the file was compressed by the protocol {kind} {options} from id {header.start_id}, and this is "
            f"{predictor.kind!r} {predictor.options} from id {predictor.start_id}; use the same one."
        )


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """As they read after they were written: tuples are lists."""
    return json.loads(json.dumps(options))


def compress_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    predictor: Predictor,
    tokenizer: Tokenizer,
    config: CompressConfig | None = None,
    progress: Progress | None = None,
    identity: str | None = None,
) -> Sizes:
    """:func:`compress` from file to file. ``target`` is written whole, or not at all."""
    data = _read(source, target, stat.S_ISREG, stat.S_ISFIFO)
    blob = compress(data, predictor, tokenizer, config, progress, identity)
    atomic_write(target, blob)
    return Sizes(len(data), len(blob), container.read_header(blob).tokens)


def decompress_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    predictor: Predictor,
    tokenizer: Tokenizer,
    progress: Progress | None = None,
    identity: str | None = None,
) -> Sizes:
    """:func:`decompress` from file to file. ``target`` is written whole, after the last check, or not at all."""
    blob = _read(source, target, stat.S_ISREG)
    data = decompress(blob, predictor, tokenizer, progress, identity)
    atomic_write(target, data)
    return Sizes(len(data), len(blob), container.read_header(blob).tokens)


def _read(source: str | os.PathLike[str], target: str | os.PathLike[str], *kinds: Callable[[int], bool]) -> bytes:
    if Path(source).resolve() == Path(target).resolve():
        raise UsageError(f"{target} would overwrite the file that is read; choose another name.")
    if not Path(target).resolve().parent.is_dir():
        raise UsageError(f"there is no folder {Path(target).parent} to write to; create it first.")
    try:
        mode = Path(source).stat().st_mode
        if not any(kind(mode) for kind in (*kinds, stat.S_ISDIR)):  # of a folder the system says so
            raise UsageError(f"cannot read {source}: it is no file, and may have no end; give a file.")
        return Path(source).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {source}: {(error.strerror or str(error)).lower()}.") from error
