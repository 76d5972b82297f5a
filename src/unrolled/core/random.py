"""Named random streams from one seed.

A stream depends on the seed, its name and its keys alone: a new consumer disturbs no other, and a resumed
run draws what the uninterrupted one would have drawn.
"""

import hashlib

import torch

__all__ = ["RandomStreams"]


class RandomStreams:
    """All randomness of a run.

    Args:
        seed: the one seed of the run.
        rank: the process in a distributed run; masks and data differ between ranks.
    """

    def __init__(self, seed: int, rank: int = 0):
        self.seed = seed
        self.rank = rank

    def key(self, name: str, *keys: int) -> int:
        """A 63-bit seed for ``name`` and integer ``keys`` (a window, an epoch)."""
        text = ":".join([str(self.seed), name, str(self.rank), *map(str, keys)])
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1

    def generator(self, name: str, *keys: int, device: str | torch.device = "cpu") -> torch.Generator:
        """A fresh torch generator for ``name`` and ``keys``."""
        return torch.Generator(device).manual_seed(self.key(name, *keys))
