"""Hidden states of a text with the tokens that followed them, and the search for the nearest of them."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from unrolled.core.errors import UnrolledError
from unrolled.predict.clusters import Members

__all__ = ["Datastore", "Finder", "exact_search"]

# keys compared at once; numbers of gathered keys held at once; bytes of searches that are remembered
_BLOCK, _GATHERED, _REMEMBERED = 1 << 14, 1 << 23, 256 << 20
QUERIES = 512
"""Queries that are searched together: fewer leave a processor waiting for memory."""

Finder = Callable[[Tensor, int], Tensor]
"""From queries (rows, width) and a number to entries (rows, number) int64, about the nearest, in any order."""


class Datastore:
    """Entries (h, x): a hidden state, and the token that followed it, in the order of the text.

    Args:
        keys: (n, width) of float16, float32 or float64; may lie in a file.
        ids: (n,) integers, the tokens.
        begins: (b,) positions at which a text begins, after which nothing follows from before.
        clusters: (n,) the cluster of each entry; None where there are none.
        finder: in place of the exact search.
        holds: checksum of the text.
    Raises:
        UnrolledError: keys that are not finite.
    """

    def __init__(
        self,
        keys: np.ndarray,
        ids: np.ndarray,
        begins: np.ndarray,
        clusters: np.ndarray | None = None,
        finder: Finder | None = None,
        holds: str = "",
    ):
        self.keys, self.holds, self.exact = keys, holds, finder is None
        self.ids = torch.from_numpy(np.append(np.asarray(ids, np.int64), 0))  # one more, for what is no entry
        follows = np.ones(len(keys) + 1, bool)
        follows[np.asarray(begins, np.int64) - 1] = False  # a text that begins at 0 marks the one that is no entry
        follows[len(keys) - 1 :] = False
        self.follows = torch.from_numpy(follows)
        self.members = None if clusters is None else Members.make(torch.from_numpy(np.asarray(clusters, np.int64)))
        self._norms = _norms(keys)
        self._find = finder or self._exactly
        self._kept: OrderedDict[bytes, tuple[Tensor, Tensor]] = OrderedDict()
        self._bytes, self._lock = 0, threading.Lock()

    def __len__(self) -> int:
        return len(self.keys)

    def nearest(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The nearest entries, in order.

        What was found is remembered, so that a text that is read again with other weights (``--search``) is searched
        once.

        Args:
            queries: (rows, width).
        Returns:
            squared distances (rows, count) and entries (rows, count) int64; fewer than ``count`` where there are.
        """
        count = min(count, len(self))
        asked = queries.detach().cpu().contiguous()
        digest = hashlib.blake2b(asked.numpy().tobytes(), digest_size=16)
        digest.update(f"{count} {asked.dtype}".encode())
        with self._lock:
            found = self._kept.get(digest.digest())
        if found is None:
            parts = [self._find(part, count) for part in queries.split(QUERIES)]
            entries = torch.cat(parts)
            distances = self.distances(queries, entries)
            order = distances.argsort(dim=1, stable=True)
            found = distances.gather(1, order), entries.gather(1, order).int()
            self._remember(digest.digest(), found)
        return found[0], found[1].long()

    def forget(self) -> None:
        """Drop what searches found."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def _remember(self, digest: bytes, found: tuple[Tensor, Tensor]) -> None:
        with self._lock:
            self._kept[digest] = found
            self._bytes += _size(found)
            while self._bytes > _REMEMBERED and self._kept:
                self._bytes -= _size(self._kept.popitem(last=False)[1])

    def distances(self, queries: Tensor, entries: Tensor) -> Tensor:
        """Squared distances (rows, m) of queries (rows, width) to entries (rows, m), each by itself, in the queries'
        type; infinite for ``len(self)``, which stands for no entry."""
        rows, count = entries.shape
        step = max(1, _GATHERED // max(1, count * self.keys.shape[1]))
        parts = []
        for query, some in zip(queries.split(step), entries.split(step), strict=True):
            places = some.clamp(max=len(self) - 1).reshape(-1).cpu().numpy()
            keys = torch.from_numpy(self.keys[places]).to(query).view(*some.shape, self.keys.shape[1])
            parts.append((keys - query.unsqueeze(1)).square_().sum(2).masked_fill(some == len(self), torch.inf))
        return torch.cat(parts) if parts else queries.new_zeros(rows, count)

    def _exactly(self, queries: Tensor, count: int) -> Tensor:
        return exact_search(self.keys, self._norms, queries, count)


def exact_search(keys: np.ndarray, norms: Tensor, queries: Tensor, count: int) -> Tensor:
    """The ``count`` nearest keys of each query by |k|^2 - 2 q k, in products of blocks.

    After the first block only keys nearer than the furthest of those found so far are looked at, which are few.

    Args:
        keys: (n, width). norms: (n,) float64, their squared lengths. queries: (rows, width).
    Returns:
        (rows, count) int64.
    """
    rows = len(queries)
    near = queries.new_empty(rows, 0)
    found = torch.empty(rows, 0, dtype=torch.int64, device=queries.device)
    for low in range(0, len(keys), _BLOCK):
        block = torch.from_numpy(np.array(keys[low : low + _BLOCK])).to(queries)
        distances = torch.addmm(norms[low : low + _BLOCK].to(queries).unsqueeze(0), queries, block.t(), alpha=-2)
        places = torch.arange(low, low + len(block), device=queries.device).expand(rows, -1)
        if near.shape[1] == count:
            distances, places = _below(distances, near.amax(1, keepdim=True), low)
        near, found = torch.cat([near, distances], 1), torch.cat([found, places], 1)
        if near.shape[1] > count:
            near, order = near.topk(count, 1, largest=False, sorted=False)
            found = found.gather(1, order)
    return found


def _below(distances: Tensor, bound: Tensor, low: int) -> tuple[Tensor, Tensor]:
    """The distances below each row's bound (rows, 1), packed to the left, and their places counted from ``low``."""
    row, column = (distances < bound).nonzero(as_tuple=True)
    counts = torch.bincount(row, minlength=len(distances))
    most = int(counts.max()) if len(counts) else 0
    position = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    packed = distances.new_full((len(distances), most), torch.inf)
    places = torch.zeros(len(distances), most, dtype=torch.int64, device=row.device)
    packed[row, position] = distances[row, column]
    places[row, position] = column + low
    return packed, places


def _norms(keys: np.ndarray) -> Tensor:
    """Squared lengths (n,) float64. Raises UnrolledError where they are not finite."""
    parts = []
    for low in range(0, len(keys), _BLOCK):
        block = torch.from_numpy(np.array(keys[low : low + _BLOCK])).double()
        parts.append(block.square_().sum(1))
    norms = torch.cat(parts)
    if not bool(norms.isfinite().all()):
        raise UnrolledError("a hidden state of the store is not a finite number; make the store anew.")
    return norms


def _size(found: tuple[Tensor, Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in found)
