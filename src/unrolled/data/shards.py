"""A file of token ids, or several after one another, read by position."""

import bisect
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unrolled.core.errors import UnrolledError
from unrolled.core.files import sha256_file

__all__ = ["IdFiles", "Shard"]


class Shard(NamedTuple):
    """A file of ids. tokens: how many. sha256: of the file, checked when it is first read; None: not checked."""

    path: Path
    tokens: int
    sha256: str | None = None


class IdFiles:
    """Ids in files, of which only those are opened that are read from. Safe to read from several threads.

    Args:
        shards: in their order. dtype: of the ids.
    """

    def __init__(self, shards: Sequence[Shard], dtype: np.dtype):
        self._shards, self._type = list(shards), np.dtype(dtype)
        self._ends = np.cumsum([shard.tokens for shard in shards]).tolist()
        self._open: dict[int, int] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, start: int, stop: int) -> np.ndarray:
        """Ids start..stop-1, which are there, as a fresh int64 array."""
        parts = []
        while start < stop:
            number = bisect.bisect_right(self._ends, start)
            first = self._ends[number] - self._shards[number].tokens
            last = min(stop, self._ends[number])
            parts.append(self._part(number, start - first, last - first))
            start = last
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _part(self, number: int, start: int, stop: int) -> np.ndarray:
        width = self._type.itemsize
        data, wanted = b"", (stop - start) * width
        while len(data) < wanted:
            more = os.pread(self._file(number), wanted - len(data), start * width + len(data))
            if not more:
                raise UnrolledError(
                    f"{self._shards[number].path} was cut short while it was read; delete the cache and start again."
                )
            data += more
        return np.frombuffer(data, self._type).astype(np.int64)

    def _file(self, number: int) -> int:
        if number not in self._open:
            shard = self._shards[number]
            try:
                right = shard.sha256 is None or sha256_file(shard.path) == shard.sha256
                file = os.open(shard.path, os.O_RDONLY)
            except OSError as error:
                raise UnrolledError(f"cannot read {shard.path}: {error.strerror}; bring that file back.") from error
            weakref.finalize(self, os.close, file)
            if not right or os.fstat(file).st_size != shard.tokens * self._type.itemsize:
                raise UnrolledError(f"{shard.path} is damaged: it is not the file that was built; build it again.")
            self._open[number] = file
        return self._open[number]
