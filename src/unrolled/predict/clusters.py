"""Groups of near keys, by which pointers are filled up."""

from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

__all__ = ["Members", "cluster"]

_ROUNDS, _BLOCK, _SAMPLE, _SEED = 8, 1 << 12, 32, 0


class Members(NamedTuple):
    """of: (n,) the cluster of each entry. order: (n,) entries, those of a cluster side by side. begins: (c + 1,) where
    each cluster begins in ``order``."""

    of: Tensor
    order: Tensor
    begins: Tensor

    @classmethod
    def make(cls, of: Tensor) -> Self:
        """From the cluster of each entry (n,) int64."""
        counts = torch.bincount(of)
        begins = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return cls(of, of.argsort(stable=True), begins)

    def filled(self, pointers: Tensor, none: int) -> Tensor:
        """Pointers filled up with the other members of their clusters.

        Args:
            pointers: (rows, most) entries, packed to the left; ``none`` stands for no entry.
        Returns:
            (rows, most): the pointers, then the members of their clusters in the order of the pointers, each once, as
            many as there is room for.
        """
        filled = pointers.clone()
        for row, given in enumerate(pointers.cpu()):
            own = given[given < none]
            room = len(given) - len(own)
            if not len(own) or not room:
                continue
            clusters = torch.from_numpy(_first_seen(self.of[own].numpy()))
            sizes = self.begins[clusters + 1] - self.begins[clusters]
            # no more clusters than could fill the room, were all of their members pointers already
            clusters = clusters[: int((sizes.cumsum(0) < room + len(own)).sum()) + 1]
            members = torch.cat([self.order[self.begins[one] : self.begins[one + 1]] for one in clusters])
            added = members[~torch.isin(members, own)][:room]
            filled[row, len(own) : len(own) + len(added)] = added.to(filled.device)
        return filled


def _first_seen(values: np.ndarray) -> np.ndarray:
    """Each value once, in the order in which they come."""
    _, first = np.unique(values, return_index=True)
    return values[np.sort(first)]


def cluster(keys: np.ndarray, count: int) -> np.ndarray:
    """k-means (Lloyd 1982): the cluster (n,) int64 of each key; a fixed seed draws the first centres.

    Centres are moved by a sample of at most 32 keys a cluster, and then every key goes to its nearest centre.

    Args:
        keys: (n, width). count: of clusters, at most n.
    """
    count = min(count, len(keys))
    generator = np.random.default_rng(_SEED)
    sample = np.sort(generator.permutation(len(keys))[: max(count, min(len(keys), _SAMPLE * count))])
    chosen = keys[sample]
    centres = torch.from_numpy(chosen[np.sort(generator.permutation(len(chosen))[:count])]).float()
    for _ in range(_ROUNDS):
        nearest = _assigned(chosen, centres)
        sums = torch.zeros_like(centres).index_add_(0, nearest, torch.from_numpy(np.asarray(chosen)).float())
        sizes = torch.bincount(nearest, minlength=count).unsqueeze(1)
        moved = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)  # a centre without keys stays
        if torch.equal(moved, centres):
            break
        centres = moved
    return _assigned(keys, centres).numpy()


def _assigned(keys: np.ndarray, centres: Tensor) -> Tensor:
    half = centres.square().sum(1) / 2
    parts = [
        (half - torch.from_numpy(np.array(keys[low : low + _BLOCK])).float() @ centres.t()).argmin(1)
        for low in range(0, len(keys), _BLOCK)
    ]
    return torch.cat(parts)
