"""Token ids on disk: a split as a file of integers in the narrowest type, read by position."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np

from unrolled.core.errors import UnrolledError
from unrolled.data.shards import IdFiles, Shard
from unrolled.data.units import Units, UnitTables

__all__ = ["Encoded", "TokenSplit", "TokenWriter", "id_file", "id_type", "mapped"]

_BLOCK = 1 << 20


class Encoded(NamedTuple):
    """Ids of a text and what they do not tell about it.

    ``positions`` are the tokens (ascending) whose id stands for other text than was read (a rare word as
    ``<unk>``); ``characters`` and ``bytes`` are true length minus the id's length there. All int64.
    """

    ids: np.ndarray
    positions: np.ndarray
    characters: np.ndarray
    bytes: np.ndarray

    @classmethod
    def exact(cls, ids: np.ndarray) -> "Encoded":
        """Ids that lose nothing."""
        none = np.zeros(0, np.int64)
        return cls(ids.astype(np.int64, copy=False), none, none, none)


def id_type(vocab_size: int) -> np.dtype:
    """The narrowest unsigned type that holds every id."""
    return np.dtype(np.uint8 if vocab_size <= 1 << 8 else np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def id_file(split: str, number: int) -> str:
    """Name of one of several files of a split's ids."""
    return f"{split}.ids-{number:05d}.bin"


class TokenWriter:
    """Writes a split into a folder, block by block, as ``<name>.ids``, ``.starts`` and ``.lost``.

    Args:
        folder: existing folder.
        name: the split.
        vocab_size: decides the type of the ids.
        with_starts: record where sentences or documents begin.
        shard: tokens of a file of ids, which are then ``<name>.ids-00000.bin`` and so on; absent: all are in one.
    """

    def __init__(self, folder: Path, name: str, vocab_size: int, with_starts: bool, shard: int | None = None):
        self.length, self.sizes = 0, [0]
        self._type, self._folder, self._name, self._shard = id_type(vocab_size), folder, name, shard
        self._ids = (folder / (f"{name}.ids" if shard is None else id_file(name, 0))).open("wb")
        self._starts: BinaryIO | None = (folder / f"{name}.starts").open("wb") if with_starts else None
        self._lost = (folder / f"{name}.lost").open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._ids, self._starts, self._lost):
            if file is not None:
                file.close()

    def append(self, encoded: Encoded, starts: np.ndarray | None = None) -> None:
        """Add tokens; ``starts``: positions within ``encoded.ids`` where a sentence or document begins."""
        left = encoded.ids
        while len(left):
            room = len(left) if self._shard is None else self._shard - self.sizes[-1]
            if not room:
                self._ids.close()
                self._ids = (self._folder / id_file(self._name, len(self.sizes))).open("wb")
                self.sizes.append(0)
                continue
            self._ids.write(left[:room].astype(self._type).tobytes())
            self.sizes[-1] += len(left[:room])
            left = left[room:]
        if self._starts is not None and starts is not None:
            self._starts.write((starts.astype(np.int64) + self.length).tobytes())
        if len(encoded.positions):
            rows = np.stack([encoded.positions + self.length, encoded.characters, encoded.bytes], 1)
            self._lost.write(rows.astype(np.int64).tobytes())
        self.length += len(encoded.ids)


class TokenSplit:
    """The tokens of one split.

    Ids are read from the file by position, so a split of any size costs no memory of the process. Safe to
    read from several threads.

    Args:
        ids: path of a file of ids, several files, or an integer array (n,).
        tables: units of the vocabulary.
        dtype: type of the ids in the file.
        starts: (k,) ascending int64 positions at which a sentence or document begins, or None for one stream.
        lost: (m, 3) int64 rows (position, characters, bytes), see :class:`Encoded`; None for none.
        checksum: sha256 of the text that was encoded.

    Attributes:
        periods: (k,) int64, the slice in time of what begins at each of ``starts``; None for a text without dates.
    """

    periods: np.ndarray | None = None

    def __init__(
        self,
        ids: Path | Sequence[Shard] | np.ndarray,
        tables: UnitTables,
        dtype: np.dtype | None = None,
        starts: np.ndarray | None = None,
        lost: np.ndarray | None = None,
        checksum: str = "",
    ):
        self.tables = tables
        self.starts = starts
        self.checksum = checksum
        self._lost = np.zeros((0, 3), np.int64) if lost is None else lost
        self._array: np.ndarray | None = None
        if isinstance(ids, np.ndarray):
            self._array = ids
            self._length = len(ids)
            return
        kind = np.dtype(dtype or np.uint8)
        shards = [Shard(ids, ids.stat().st_size // kind.itemsize)] if isinstance(ids, Path) else ids
        self._files = IdFiles(shards, kind)
        self._length = len(self._files)

    @classmethod
    def open(cls, folder: Path, name: str, tables: UnitTables, checksum: str) -> "TokenSplit":
        """A split written by :class:`TokenWriter`. Raises UnrolledError on missing or shortened files."""
        try:
            meta = json.loads((folder / "meta.json").read_text())["splits"][name]
            split = cls(
                folder / f"{name}.ids",
                tables,
                id_type(len(tables.words)),
                mapped(folder / f"{name}.starts"),
                mapped(folder / f"{name}.lost", 3),
                checksum,
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UnrolledError(f"the token files in {folder} are damaged; delete that folder.") from error
        if len(split) != meta["tokens"]:
            raise UnrolledError(f"the token files in {folder} are damaged; delete that folder.")
        return split

    def __len__(self) -> int:
        return self._length

    def first(self, tokens: int) -> "TokenSplit":
        """The split's beginning of at most so many tokens; the checksum stays that of the whole text."""
        made = copy.copy(self)
        made._length = min(tokens, self._length)
        made.starts = None if self.starts is None else self.starts[self.starts < made._length]
        made.periods = None if self.periods is None or made.starts is None else self.periods[: len(made.starts)]
        made._lost = self._lost[self._lost[:, 0] < made._length]
        return made

    def ids(self, start: int, stop: int) -> np.ndarray:
        """Ids start..stop-1 as a fresh int64 array; the range is clipped to the split."""
        start, stop = max(start, 0), min(stop, self._length)
        if stop <= start:
            return np.zeros(0, np.int64)
        if self._array is not None:
            return self._array[start:stop].astype(np.int64)
        return self._files.read(start, stop)

    def units(self, start: int = 0, stop: int | None = None) -> Units:
        """Exact units of tokens start..stop-1 (default: all)."""
        stop = self._length if stop is None else min(stop, self._length)
        start = max(start, 0)
        total = Units(0, 0, 0, 0)
        for low in range(start, stop, _BLOCK):
            ids = self.ids(low - 1 if low else 0, min(low + _BLOCK, stop))
            total = total + (self.tables.count(ids[1:], int(ids[0])) if low else self.tables.count(ids))
        low, high = np.searchsorted(self._lost[:, 0], [start, max(start, stop)])
        lost = self._lost[low:high]
        return total + Units(0, 0, int(lost[:, 1].sum()), int(lost[:, 2].sum()))

    def per_token(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Words, characters and bytes of each of the tokens start..stop-1: three int64 arrays."""
        previous = int(self.ids(start - 1, start)[0]) if start else None
        words, characters, size = self.tables.per_token(self.ids(start, stop), previous)
        low, high = np.searchsorted(self._lost[:, 0], [start, stop])
        lost = self._lost[low:high]
        np.add.at(characters, lost[:, 0] - start, lost[:, 1])
        np.add.at(size, lost[:, 0] - start, lost[:, 2])
        return words, characters, size


def mapped(path: Path, columns: int | None = None) -> np.ndarray | None:
    """An int64 file as a read-only map; None when there is no such file, an empty array when it is empty."""
    if not path.exists():
        return None
    shape: Any = (-1,) if columns is None else (-1, columns)
    if not path.stat().st_size:
        return np.zeros(0, np.int64).reshape((0,) if columns is None else (0, columns))
    # As a plain array: the methods of memmap are slow, the memory is the same.
    return np.asarray(np.memmap(path, np.int64, "r")).reshape(shape)
