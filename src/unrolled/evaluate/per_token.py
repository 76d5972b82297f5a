"""Token id and log-probability of every scored position, in a file that any program can read.

The file is text in UTF-8, gzipped where its name ends in ``.gz``::

    # unrolled per-token 1
    # {"tokens": 3, "first_position": 0, "ids_sha256": ..., "protocol": {...}, "provenance": {...}}
    id<TAB>log_prob
    17<TAB>-4.605170185988091
    ...
    # end <sha256 of the log-probabilities as little-endian float64>

Log-probabilities are natural, in the shortest decimal form that reads back as the same float64.
"""

import gzip
import hashlib
import json
import os
import reprlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import numpy as np
from pydantic import Field

from unrolled.core.bounded import bounded_lines
from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError
from unrolled.core.files import parse_json, regular_file
from unrolled.core.packed import BROKEN, open_packed
from unrolled.evaluate.result import Protocol

__all__ = ["PerToken", "PerTokenHeader", "PerTokenWriter", "read_per_token"]

_VERSION = 1
_MAGIC = "# unrolled per-token "
_COLUMNS = "id\tlog_prob"
# How far rounding may lift a log-probability above 0.
_ROUNDING = 1e-4


class PerTokenHeader(Config):
    """What the figures in a per-token file belong to."""

    tokens: int = Field(ge=1, description="positions in the file")
    first_position: int = Field(ge=0, description="position in the split of the first token in the file")
    ids_sha256: str = Field(description="sha256 of the ids in the file as little-endian int64")
    protocol: Protocol = Field(description="how they were obtained")
    provenance: dict[str, Any] = Field(default={}, description="corpus, split, text_sha256, tokenizer, model, step")


class PerToken(NamedTuple):
    """A per-token file in memory. ids: (n,) int64. log_prob: (n,) float64, nats."""

    header: PerTokenHeader
    ids: np.ndarray
    log_prob: np.ndarray


class PerTokenWriter:
    """Writes a per-token file as the figures arrive, in constant memory. A context manager.

    Args:
        path: the file, overwritten. compress: gzip it.
    """

    def __init__(self, path: str | os.PathLike[str], header: PerTokenHeader, compress: bool = False):
        self._path, self._header, self._compress = Path(path), header, compress
        self._digest = hashlib.sha256()
        self._count = 0

    def __enter__(self) -> Self:
        self._raw = self._path.open("wb")
        # No name and no time in the gzip header: equal figures give equal bytes.
        self._file: IO[bytes] | gzip.GzipFile = self._raw
        if self._compress:
            self._file = gzip.GzipFile("", "wb", fileobj=self._raw, mtime=0)
        header = json.dumps(self._header.model_dump(mode="json"), ensure_ascii=False, allow_nan=False)
        self._write([f"{_MAGIC}{_VERSION}", f"# {header}", _COLUMNS])
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            if kind is None:
                if self._count != self._header.tokens:
                    raise UnrolledError(f"{self._count} of {self._header.tokens} tokens were scored.")
                self._write([f"# end {self._digest.hexdigest()}"])
            if self._file is not self._raw:
                self._file.close()
        finally:
            self._raw.close()

    def append(self, ids: np.ndarray, log_prob: np.ndarray) -> None:
        """Add positions. ids, log_prob: (n,)."""
        exact = log_prob.astype("<f8")
        self._digest.update(exact.tobytes())
        self._count += len(ids)
        self._write(f"{i}\t{value!r}" for i, value in zip(ids.tolist(), exact.tolist(), strict=True))

    def _write(self, lines: Iterable[str]) -> None:
        self._file.write("".join(f"{line}\n" for line in lines).encode())


def read_per_token(path: str | os.PathLike[str]) -> PerToken:
    """Read a per-token file and verify it.

    Raises:
        UnrolledError: missing, of another kind or version, cut short, or not what its checksums say.
    """
    path = regular_file(path)
    try:
        with open_packed(path) as file:
            return _read(bounded_lines(file, path.stat().st_size), path)
    except (OSError, ValueError, OverflowError, *BROKEN) as error:
        raise UnrolledError(f"{path} is a damaged per-token file, or none at all; write it again.") from error


def _read(lines: Iterator[bytes], path: Path) -> PerToken:
    magic, head, columns = (next(lines, b"").decode("utf-8").rstrip("\r\n") for _ in range(3))
    if not magic.startswith(_MAGIC):
        raise UnrolledError(f"{path} is not a per-token file of unrolled.")
    if magic != f"{_MAGIC}{_VERSION}":
        version = reprlib.repr(magic.removeprefix(_MAGIC))[1:-1]
        raise UnrolledError(f"{path} has format {version}, this release reads {_VERSION}; upgrade unrolled.")
    # A ValidationError is a ValueError.
    header = PerTokenHeader.model_validate(parse_json(head.removeprefix("# ")))
    if columns != _COLUMNS:
        raise ValueError("columns")
    ids, log_prob, end = array("q"), array("d"), ""
    for line in lines:
        if line.startswith(b"#"):
            end = line.decode("utf-8").rstrip("\r\n")
            break
        index, _, value = line.partition(b"\t")
        ids.append(int(index))
        log_prob.append(float(value))
    result = PerToken(header, np.frombuffer(ids, np.int64), np.frombuffer(log_prob, np.float64))
    if not end or len(ids) != header.tokens:
        raise UnrolledError(f"{path} is cut short: {len(ids)} of {header.tokens} tokens; write it again.")
    parts = (result.ids.astype("<i8", copy=False), result.log_prob.astype("<f8", copy=False))
    digests = [hashlib.sha256(part.data).hexdigest() for part in parts]
    if digests != [header.ids_sha256, end.removeprefix("# end ")]:
        raise UnrolledError(f"{path} was changed after it was written (checksum); write it again.")
    wrong = np.flatnonzero(~((result.log_prob < _ROUNDING) & (result.ids >= 0)))  # NaN is below nothing
    if len(wrong):
        first = int(wrong[0])
        raise UnrolledError(
            f"{path}: token {first + 1} has the id {ids[first]} and the log-probability {log_prob[first]:g}, which no "
            "model gives; write it again."
        )
    return result
