"""Named random streams from one seed.

A stream depends on the seed, its name and its keys alone: a new consumer disturbs no other, and a resumed
run draws what the uninterrupted one would have drawn.
"""

import hashlib
from typing import NamedTuple

import torch

__all__ = ["RandomStreams", "Shards"]


class Shards(NamedTuple):
    """Equal groups of the columns of a run. own: those that this process has. count: of all.

    A run is cut into shards once; which process has which may change when it is resumed.
    """

    own: range
    count: int

    def part(self, rows: int) -> range:
        """Of so many rows, a multiple of ``count``, those of the shards that are here."""
        each = rows // self.count
        return range(self.own.start * each, self.own.stop * each)


class RandomStreams:
    """All randomness of a run.

    Args:
        seed: the one seed of the run.
        shard: of its columns; what is drawn for the rows of a batch differs between shards.
        shards: of a run that several processes may share, those whose rows are here.
    """

    def __init__(self, seed: int, shard: int = 0, shards: Shards | None = None):
        self.seed = seed
        self.shard = shard
        self.shards = shards

    def by_rows(self) -> "list[RandomStreams]":
        """Those of each shard whose rows are here, in their order; what is drawn once for the whole run is drawn from
        this object itself."""
        return [self] if self.shards is None else [RandomStreams(self.seed, shard) for shard in self.shards.own]

    def part(self, rows: int) -> range:
        """Which of a batch's ``rows`` are here."""
        return range(rows) if self.shards is None else self.shards.part(rows)

    def key(self, name: str, *keys: int) -> int:
        """A 63-bit seed for ``name`` and integer ``keys`` (a window, an epoch)."""
        text = ":".join([str(self.seed), name, str(self.shard), *map(str, keys)])
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1

    def generator(self, name: str, *keys: int, device: str | torch.device = "cpu") -> torch.Generator:
        """A fresh torch generator for ``name`` and ``keys``."""
        return torch.Generator(device).manual_seed(self.key(name, *keys))
