"""Bytes to ids and back, refused beforehand where that would lose anything."""

import hashlib

import numpy as np

from unrolled.core.errors import UsageError
from unrolled.tokenizer import Tokenizer

__all__ = ["sha256", "to_bytes", "to_ids"]

_SHOWN, _BLOCK = 16, 1 << 16


def to_ids(data: bytes, tokenizer: Tokenizer) -> np.ndarray:
    """The ids of a text, (tokens,) int64, which decode to exactly that text.

    Raises:
        UsageError: the text is not UTF-8 and the tokenizer needs that; the vocabulary lacks something in it; or
            decoding gives another text (a word tokenizer keeps no double spaces, say).
    """
    if not data:
        return np.zeros(0, np.int64)
    if not tokenizer.reads_bytes:
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(
                f"the file is not UTF-8 text (at byte {error.start}), which the {tokenizer.kind} tokenizer of this "
                "model needs; compress it with a model of bytes."
            ) from error
    encoded = tokenizer.encode_block(data)
    if len(encoded.positions):
        place = len(to_bytes(encoded.ids[: encoded.positions[0]], tokenizer))
        lacking = data[place : place + (1 if tokenizer.reads_bytes else _SHOWN)]
        raise UsageError(
            f"the vocabulary of this model lacks {lacking!r} "
            f"(at byte {place}), so the file would not come back whole; compress it with a model of all 256 bytes."
        )
    back = to_bytes(encoded.ids, tokenizer)
    if back != data:
        place = _first_difference(data, back)
        raise UsageError(
            f"the {tokenizer.kind} tokenizer of this model would give back {back[place : place + _SHOWN]!r} for "
            f"{data[place : place + _SHOWN]!r} (at byte {place}); compress the file with a model of bytes."
        )
    return encoded.ids


def to_bytes(ids: np.ndarray, tokenizer: Tokenizer) -> bytes:
    """The inverse of :func:`to_ids`, block by block."""
    decoder = tokenizer.decoder()
    blocks = (ids[low : low + _BLOCK].tolist() for low in range(0, len(ids), _BLOCK))
    return b"".join(b"".join(map(decoder.bytes_of, block)) for block in blocks)


def sha256(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _first_difference(one: bytes, other: bytes) -> int:
    size = min(len(one), len(other))
    differs = np.frombuffer(one[:size], np.uint8) != np.frombuffer(other[:size], np.uint8)
    return int(differs.argmax()) if differs.any() else size
