"""The graph of a text's symbols."""

import numpy as np

from unrolled.core.errors import UsageError
from unrolled.core.graph import MOST_NODES, Graph
from unrolled.data import TokenSplit

__all__ = ["symbol_graph"]

_BLOCK = 1 << 20


def symbol_graph(split: TokenSplit, size: int) -> Graph:
    """Symbols are nodes, and how often two of them stand side by side, in either order, is between them: the square
    root of their count as a share of the largest one. The counting is ours: the graph of Seo et al. (2016) is made of
    such pairs, and the file with it is not in the authors' repository.

    Args:
        split: the training text. size: symbols of the vocabulary.
    Raises:
        UsageError: a vocabulary that is too large, or a text without a pair.
    """
    if size > MOST_NODES:
        raise UsageError(
            f"a graph of the {size:,} tokens of this vocabulary is too large, {MOST_NODES} is the most; take a "
            "tokenizer of characters (tokenizer.name=char), or set model.cell.graph=ring."
        )
    counts = np.zeros(size * size, np.int64)
    for start in range(0, len(split), _BLOCK):
        ids = np.asarray(split.ids(start, start + _BLOCK + 1), np.int64)  # the next block's first, for the pair between
        counts += np.bincount(ids[:-1] * size + ids[1:], minlength=size * size)
    both = counts.reshape(size, size)
    both = both + both.T
    np.fill_diagonal(both, 0)
    if not both.any():
        raise UsageError("the training text has no two different symbols side by side, so that there is no graph.")
    return Graph.of(np.sqrt(both / both.max()), "the graph of the symbols")
