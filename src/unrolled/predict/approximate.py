"""The search of many keys by faiss, which looks at some of them only."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrolled.core.errors import UnrolledError
from unrolled.core.extras import require
from unrolled.core.files import atomic_write
from unrolled.predict.datastore import Finder

__all__ = ["INDEX", "approximate_finder"]

INDEX = "index.faiss"
_TRAINED, _ADDED = 64, 1 << 16


def approximate_finder(keys: np.ndarray, probes: int, folder: Path | None = None) -> Finder:
    """A search of the cells of an inverted file (faiss, IVF with keys in float16) that are nearest to a query.

    There are 4 sqrt(n) cells. What it finds is ordered by exact distances afterwards; what it misses is missed.

    Args:
        keys: (n, width). probes: cells that are looked at; all of them make the search exact up to float16.
        folder: where the index is kept, once made.
    Raises:
        UnrolledError: faiss is not installed; an index that is damaged, or of another store.
    """
    require("knn", "faiss")
    faiss = importlib.import_module("faiss")
    path = None if folder is None else folder / INDEX
    if path is not None and path.is_file():
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise UnrolledError(f"{path} is damaged; delete it, and it is made anew.") from error
        if (index.ntotal, index.d) != keys.shape:
            raise UnrolledError(f"{path} is the index of another store; delete it, and it is made anew.")
    else:
        index = _built(faiss, keys)
        if path is not None:
            atomic_write(path, lambda part: faiss.write_index(index, str(part)))
    index.nprobe = min(probes, index.nlist)

    def find(queries: Tensor, count: int) -> Tensor:
        _, found = index.search(queries.detach().float().cpu().numpy(), count)
        found[found < 0] = len(keys)  # the cells looked at held fewer
        return torch.from_numpy(found).to(queries.device)

    return find


def _built(faiss: Any, keys: np.ndarray) -> Any:
    count, width = keys.shape
    cells = max(1, min(int(4 * count**0.5), count))
    coarse = faiss.IndexFlatL2(width)
    kind = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexIVFScalarQuantizer(coarse, width, cells, kind)
    drawn = np.sort(np.random.default_rng(0).permutation(count)[: _TRAINED * cells])
    index.train(np.asarray(keys[drawn], np.float32))
    for low in range(0, count, _ADDED):
        index.add(np.asarray(keys[low : low + _ADDED], np.float32))
    return index
