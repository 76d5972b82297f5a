"""Whether a graph is a tree."""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from unrolled.core.errors import UsageError
from unrolled.data.made.base import Answers, Batch, Problem, ProblemConfig, Span

__all__ = ["IsTree", "IsTreeConfig"]

_CUE, _NO, _YES, _FIRST = 1, 2, 3, 4


class IsTreeConfig(ProblemConfig):
    """Settings of the question whether a graph is a tree."""

    name: Literal["istree"] = "istree"
    family: Literal["stars", "random"] = Field(
        default="random", description="two stars and one edge more, or graphs with one edge less than nodes"
    )
    nodes: Span = Field(default=8, description="nodes of a graph")
    names: int = Field(default=32, ge=4, le=65536, description="names that its nodes are drawn from")


class IsTree(Problem):
    """The edges of a graph in random order, each as its two nodes, then the question whether it is a tree (Wen et al.
    2024, arXiv:2402.18510).

    One half are trees. Both kinds have one edge less than nodes, no edge twice and none from a node to itself, so that
    a graph is a tree where it has no cycle. Family ``stars``: each node is joined to one of two centres, and one edge
    more joins the stars, or two leaves of one star; the published generator never moves the two centres, here they are
    any nodes. Family ``random``: a node of a tree is joined to any node before it, in a random order of nodes; other
    graphs have edges drawn from all.
    """

    Config = IsTreeConfig
    EXAMPLES = (
        IsTreeConfig(nodes=(5, 7), names=8),
        IsTreeConfig(family="stars", nodes=8, names=12),
        IsTreeConfig(family="stars", nodes=(6, 7)),
    )

    def check(self) -> None:
        """See :meth:`Problem.check`."""
        least, most = self.shortest().config.nodes, self.longest().config.nodes
        if least < (6 if self.config.family == "stars" else 4):
            raise UsageError("istree needs graphs of 4 nodes at least, and of 6 for two stars; raise nodes.")
        if most > self.config.names:
            raise UsageError(f"istree has {self.config.names} names for {most} nodes; raise names.")

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start, question, answers, names of nodes."""
        return (">", "?", "no", "yes", *(f"n{i}" for i in range(self.config.names)))

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        c, make = self.config, self._stars if self.config.family == "stars" else self._random
        inputs, truth = np.zeros((rows, 2 * c.nodes), np.int64), g.random(rows) < 0.5
        for row in range(rows):
            names = _FIRST + g.permutation(c.names)[: c.nodes]
            edges = names[np.array(make(g, bool(truth[row])))][g.permutation(c.nodes - 1)]
            turned = g.random(c.nodes - 1) < 0.5
            edges[turned] = edges[turned][:, ::-1]
            inputs[row, 1:-1] = edges.reshape(-1)
        inputs[:, -1] = _CUE
        targets, weight = np.zeros_like(inputs), np.zeros(inputs.shape, np.float32)
        targets[:, -1], weight[:, -1] = np.where(truth, _YES, _NO), 1
        return Batch(inputs, targets, weight, {})

    def _stars(self, g: np.random.Generator, tree: bool) -> list[tuple[int, int]]:
        """Centres are the nodes 0 and 1; there are two leaves on each star at least."""
        n = self.config.nodes
        first = int(g.integers(2, n - 3))  # leaves of the first star
        ours, others = list(range(2, 2 + first)), list(range(2 + first, n))
        edges = [*((0, leaf) for leaf in ours), *((1, leaf) for leaf in others)]
        if tree:
            ends = [one[int(g.integers(len(one)))] for one in ([0, *ours], [1, *others])]
            return [*edges, (ends[0], ends[1])]
        # within one star two leaves are joined, which closes a triangle with the centre
        star = ours if g.random() < 0.5 else others
        a, b = g.choice(len(star), 2, replace=False)
        return [*edges, (star[a], star[b])]

    def _random(self, g: np.random.Generator, tree: bool) -> list[tuple[int, int]]:
        n = self.config.nodes
        if tree:
            return [(node, int(g.integers(node))) for node in range(1, n)]
        every = [(a, b) for a in range(n) for b in range(a)]
        while True:
            edges = [every[i] for i in g.choice(len(every), n - 1, replace=False)]
            reached, grown = {0}, True
            while grown:
                more = {end for a, b in edges if (a in reached) != (b in reached) for end in (a, b)} - reached
                reached, grown = reached | more, bool(more)
            if len(reached) < n:
                return edges

    def answers(self, batch: Batch) -> Answers:
        """Joins sets of nodes until an edge lies within one."""
        targets, weight = np.zeros_like(batch.inputs), np.zeros_like(batch.weight)
        for row, line in enumerate(batch.inputs.tolist()):
            ends = line[1 : line.index(_CUE)]
            edges = list(zip(ends[::2], ends[1::2], strict=True))
            assert len({frozenset(edge) for edge in edges}) == len(edges)
            assert all(a != b for a, b in edges)
            parent: dict[int, int] = {}

            def root(node: int, parent: dict[int, int] = parent) -> int:
                while parent.setdefault(node, node) != node:
                    node = parent[node]
                return node

            cycle = False
            for a, b in edges:
                cycle = cycle or root(a) == root(b)
                parent[root(a)] = root(b)
            targets[row, -1], weight[row, -1] = _NO if cycle else _YES, 1
            assert cycle or len(parent) == len(edges) + 1
        return Answers(targets, weight)

    def time(self) -> int:
        """The start symbol, both ends of each edge, the question."""
        return 2 * self.longest().config.nodes

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Larger graphs."""
        return {"nodes": tuple(nodes for nodes in (8, 16, 32) if nodes <= self.config.names)}

    def chance(self) -> float:
        """Yes or no."""
        return 0.5
