"""Forests for the checks."""

import numpy as np

__all__ = ["chain", "forest", "joined", "left_chain", "tree"]


def tree(seed: int, leaves: int, arity: int | None) -> np.ndarray:
    """Parents of a random tree: of so many children at each inner node, or of 1 to 4."""
    g = np.random.default_rng(seed)
    parents, free = [-1] * leaves, list(range(leaves))
    while len(free) > 1 or (arity is None and g.random() < 0.3):
        count = min(len(free), arity or int(g.integers(1, 5)))
        begin = int(g.integers(0, len(free) - count + 1))
        for child in free[begin : begin + count]:
            parents[child] = len(parents)
        free[begin : begin + count] = [len(parents)]
        parents.append(-1)
    return np.array(parents, np.int64)


def chain(nodes: int) -> np.ndarray:
    """A node on top of another."""
    return np.array([*range(1, nodes), -1], np.int64)


def left_chain(leaves: int) -> np.ndarray:
    """A binary tree whose right children are all leaves: leaf 0, leaf 1, their parent, leaf 2, its parent, ..."""
    parents = [2]
    for number in range(1, leaves):
        last = number == leaves - 1
        parents += [2 * number, -1 if last else 2 * number + 2]
    return np.array(parents if leaves > 1 else [-1], np.int64)


def joined(trees: list[np.ndarray]) -> np.ndarray:
    """Trees as one forest."""
    offsets = np.cumsum([0, *(len(one) for one in trees)])
    return np.concatenate([np.where(one < 0, -1, one + low) for one, low in zip(trees, offsets[:-1], strict=True)])


def forest(arity: int | None) -> np.ndarray:
    """Eight random trees of 1 to 12 leaves, a leaf alone, and a chain (to the left, of binary trees)."""
    random = [tree(seed, 1 + (seed * 5) % 12, arity) for seed in range(8)]
    return joined([*random, np.array([-1], np.int64), chain(6) if arity is None else left_chain(6)])
