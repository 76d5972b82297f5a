"""The file: a magic number, a header, and the coded text, each with a checksum.

Little-endian throughout:

======================  ========================================================================
8 bytes                 ``8a 75 6e 72 7a 0d 0a 0a``: no text file begins so, and a change of line ends shows
uint16, uint32, uint32  version of the format; length and CRC-32 of what follows
deflated JSON           :class:`Header` (zlib)
uint32 each             running CRC-32 of the ids, after every ``check_every`` tokens or so
uint64                  state of the coder
uint32 each             code words
======================  ========================================================================
"""

import json
import os
import struct
import zlib
from typing import Any, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from unrolled.compress.ans import Coded
from unrolled.compress.plan import MOST_LANES, Plan
from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import parse_json, regular_file

__all__ = ["Container", "Header", "file_header", "pack", "read_header", "unpack"]

MAGIC, VERSION = b"\x8aunrz\r\n\n", 1
_FIXED, _STATE = struct.Struct("<HII"), struct.Struct("<Q")
_BEGIN = len(MAGIC) + _FIXED.size
_MOST_THREADS, _MOST_HEADER = 1024, 1 << 20


class Header(Config):
    """What a compressed file says about itself."""

    model: str = Field(description="checksum of the model's weights, or the identity that the caller gave it")
    tokenizer: str = Field(description="fingerprint of the tokenizer")
    kind: str = Field(description="kind of the predictor")
    options: dict[str, Any] = Field(description="settings of the predictor")
    start_id: int = Field(ge=0, description="id fed before the first token of each lane")
    bytes: int = Field(
        ge=0, description="length of the text; no less than its tokens, each of which has a byte or more"
    )
    sha256: str = Field(description="sha256 of the text")
    tokens: int = Field(ge=0, description="length of the text in tokens")
    lanes: int = Field(
        ge=1, le=MOST_LANES, description="parallel parts; the first (tokens mod lanes) have one token more"
    )
    bits: int = Field(ge=1, le=30, description="log2 of the total of a table of frequencies")
    check_every: int = Field(ge=1, description="tokens between two checksums of the ids, rounded down to whole steps")
    threads: int = Field(ge=1, le=_MOST_THREADS, description="threads of torch that computed the probabilities")
    arithmetic: dict[str, Any] = Field(description="what else the last digit of a probability depends on")
    probe: str = Field(description="checksum of the tables of a fixed text")
    checks: int = Field(ge=0, description="number of checksums of the ids")
    words: int = Field(ge=0, description="number of code words")
    crc32: int = Field(description="of everything after the header")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.lanes > max(1, self.tokens):
            raise ValueError("a lane has a token or more")
        if not bool(self.tokens) == bool(self.bytes) or self.tokens > self.bytes:
            raise ValueError("a token has a byte or more")
        if self.checks != Plan(self.tokens, self.lanes, self.bits, self.check_every).checks:
            raise ValueError("another number of checksums")
        return self


class Container(NamedTuple):
    """checks: (header.checks,) uint32, see the table above."""

    header: Header
    checks: np.ndarray
    coded: Coded


def pack(header: dict[str, Any], checks: list[int], coded: Coded) -> bytes:
    """The bytes of a file.

    Args:
        header: the fields of :class:`Header` without ``checks``, ``words`` and ``crc32``.
    """
    parts = (np.array(checks, "<u4").tobytes(), _STATE.pack(coded.state), coded.words.astype("<u4").tobytes())
    body = b"".join(parts)
    whole = Header.parse({**header, "checks": len(checks), "words": len(coded.words), "crc32": zlib.crc32(body)})
    text = zlib.compress(json.dumps(whole.model_dump(mode="json"), separators=(",", ":")).encode(), 9)
    return b"".join((MAGIC, _FIXED.pack(VERSION, len(text), zlib.crc32(text)), text, body))


def read_header(blob: bytes) -> Header:
    """The header alone. Raises UnrolledError in one sentence, see :func:`unpack`."""
    return _header(blob)[0]


def file_header(path: str | os.PathLike[str]) -> Header:
    """The header of a file, of which no more is read. Raises UnrolledError, see :func:`unpack`, or where the file is
    missing or cannot be read."""
    path = regular_file(path)
    try:
        with path.open("rb") as file:
            return read_header(file.read(_BEGIN + _MOST_HEADER))
    except OSError as error:
        raise UnrolledError(f"cannot read {path}: {error.strerror or error}.") from error


def unpack(blob: bytes) -> Container:
    """The inverse of :func:`pack`. Raises UnrolledError: foreign, of a newer release, damaged or cut short."""
    header, begin = _header(blob)
    sizes = 4 * header.checks, _STATE.size, 4 * header.words
    body = memoryview(blob)[begin:]
    if len(body) < sum(sizes):
        raise UnrolledError(
            f"the compressed file is cut short: {len(body):,} of {sum(sizes):,} bytes of coded text; copy it again."
        )
    if len(body) > sum(sizes) or zlib.crc32(body) != header.crc32:
        raise _damaged()
    (state,) = _STATE.unpack_from(body, sizes[0])
    words = np.frombuffer(body[sizes[0] + sizes[1] :], "<u4")
    return Container(header, np.frombuffer(body[: sizes[0]], "<u4"), Coded(state, words))


def _header(blob: bytes) -> tuple[Header, int]:
    """The header, and where the coded text begins."""
    if blob[: len(MAGIC)] != MAGIC:
        raise UnrolledError("this is no file that unrolled compressed, or its beginning is damaged.")
    if len(blob) < _BEGIN:
        raise UnrolledError("the compressed file is cut short: it ends before its header; copy it again.")
    version, length, crc = _FIXED.unpack_from(blob, len(MAGIC))
    if version > VERSION:
        raise UnrolledError(
            f"the file was compressed by a newer release (format {version}, this release reads up to {VERSION}); "
            "upgrade unrolled."
        )
    text = blob[_BEGIN : _BEGIN + length]
    if len(text) < length:
        raise UnrolledError("the compressed file is cut short: it ends in its header; copy it again.")
    if zlib.crc32(text) != crc or not version:
        raise _damaged()
    try:
        return Header.parse(parse_json(_inflate(text))), _BEGIN + length
    except (zlib.error, ValueError, UsageError) as error:
        raise _damaged() from error


def _inflate(text: bytes) -> bytes:
    """Raises ValueError for what would fill the memory."""
    inflater = zlib.decompressobj()
    data = inflater.decompress(text, _MOST_HEADER)
    if not inflater.eof or inflater.unused_data:
        raise ValueError("header")
    return data


def _damaged() -> UnrolledError:
    return UnrolledError("the compressed file is damaged (a checksum does not fit); copy it again.")
