"""Graphs: nodes, and what lies between them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unrolled.core.errors import UsageError

__all__ = ["MOST_NODES", "Graph", "checked"]

MOST_NODES = 4096
"""The matrices of a graph are dense here, of this side at most."""


class Graph(NamedTuple):
    """An undirected graph. edges: (node, another node, weight above 0), each pair once, nodes counted from 0."""

    nodes: int
    edges: tuple[tuple[int, int, float], ...]

    @classmethod
    def of(cls, weights: np.ndarray, name: str = "the graph") -> "Graph":
        """From a matrix (nodes, nodes) of weights.

        Raises:
            UsageError: no square matrix, one that is not symmetric, too many nodes; a weight that is negative or not
                finite, or one from a node to itself.
        """
        shape = weights.shape
        if (
            len(shape) != 2
            or shape[0] != shape[1]
            or not 0 < shape[0] <= MOST_NODES
            or weights.dtype.kind not in "fiub"
        ):
            raise UsageError(f"{name} is no square matrix of numbers of 1 to {MOST_NODES} nodes; give such a one.")
        full = weights.astype(np.float64)
        if not np.isfinite(full).all() or (full < 0).any() or np.diagonal(full).any() or (full != full.T).any():
            raise UsageError(
                f"{name} has a weight that is negative or not finite, one from a node to itself, or two that differ "
                "between the same nodes; correct it."
            )
        return cls(len(full), tuple((int(a), int(b), float(full[a, b])) for a, b in np.argwhere(np.triu(full))))

    def matrix(self) -> np.ndarray:
        """The weights (nodes, nodes), float64, symmetric."""
        full = np.zeros((self.nodes, self.nodes))
        for a, b, weight in self.edges:
            full[a, b] = full[b, a] = weight
        return full

    def laplacian(self, largest: bool) -> np.ndarray:
        """2 L / m - I with L = I - D^(-1/2) A D^(-1/2), float64, whose eigenvalues lie in [-1, 1]. A node without edges
        has 0 for D^(-1/2), as in public code.

        Args:
            largest: m is the largest eigenvalue of L; else 2, which none exceeds.
        """
        full = self.matrix()
        degree = full.sum(1)
        root = np.where(degree > 0, 1 / np.sqrt(np.where(degree > 0, degree, 1)), 0.0)
        identity = np.eye(self.nodes)
        plain = identity - root[:, None] * full * root
        return 2 * plain / (float(np.linalg.eigvalsh(plain)[-1]) if largest else 2.0) - identity


def checked(nodes: int, edges: Sequence[tuple[int, int, float]]) -> None:
    """Raises UsageError for edges that are none of a graph of so many nodes."""
    seen = set()
    for a, b, weight in edges:
        if not (0 <= a < nodes and 0 <= b < nodes) or a == b or not 0 < weight < float("inf"):
            raise UsageError(
                f"({a}, {b}, {weight:g}) is no edge between two of {nodes} nodes, counted from 0, with a weight above "
                "0; correct the edges."
            )
        if (min(a, b), max(a, b)) in seen:
            raise UsageError(f"the edge between {a} and {b} is there twice; give each pair once.")
        seen.add((min(a, b), max(a, b)))
