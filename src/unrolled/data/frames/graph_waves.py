"""Waves over the nodes of a graph, made here."""

from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from unrolled.core.errors import UsageError
from unrolled.core.graph import Graph
from unrolled.core.random import RandomStreams
from unrolled.data.frames.base import FramesConfig, FrameSource, FrameSplit

__all__ = ["GraphWaves", "GraphWavesConfig"]


class GraphWavesConfig(FramesConfig):
    """Settings of waves over a graph."""

    name: Literal["graph_waves"] = "graph_waves"
    nodes: int = Field(default=24, ge=2, le=1024, description="nodes, which lie at random in a square")
    neighbours: int = Field(default=4, ge=1, le=1023, description="each is joined to so many of the nearest ones")
    length: int = Field(default=12, ge=2, le=1 << 12, description="frames of a sequence")
    speed: float = Field(
        default=0.8, gt=0, lt=1, description="share of the largest step that a wave may make without growing"
    )
    noise: float = Field(default=0.02, ge=0, le=1, description="deviation of the noise on every number; waves have 1")
    sequences: int = Field(default=600, ge=1, le=1 << 20, description="of training; validation and test have a tenth")
    seed: int = Field(
        default=1, ge=0, description="of the graph and the sequences; the seed of a run does not change them"
    )

    @model_validator(mode="after")
    def _enough(self) -> "GraphWavesConfig":
        if self.neighbours >= self.nodes:
            raise UsageError(f"{self.nodes} nodes have {self.nodes - 1} neighbours at most; lower neighbours.")
        return self


class GraphWaves(FrameSource):
    r"""Waves that spread over a graph from two nodes, an example of signals on nodes as those of sensors.

    .. math:: u_{t+1} = 2 u_t - u_{t-1} - \tfrac{4 s^2}{\lambda} L u_t, \quad u_{-1} = u_0

    with the Laplacian L = I - D^(-1/2) A D^(-1/2), its largest eigenvalue λ and the speed s; what a sequence begins
    with is a bump around two nodes drawn for it, of either sign, over their distances in edges. What comes next at a
    node follows from its last two numbers and those of its neighbours, so that a model has to know the graph. A weight
    between nodes falls with their distance. Sequences are scaled to deviation 1 in their first frame.
    """

    Config = GraphWavesConfig
    EXAMPLES = (GraphWavesConfig(nodes=6, neighbours=2, length=4, sequences=20),)
    config: GraphWavesConfig

    @property
    def channels(self) -> int:
        """See :class:`FrameSource`."""
        return self.config.nodes

    @cached_property
    def graph(self) -> Graph:  # type: ignore[override]
        """See :class:`FrameSource`."""
        c = self.config
        generator = RandomStreams(c.seed).generator("graph_waves.places")
        places = torch.rand(c.nodes, 2, generator=generator, dtype=torch.float64).numpy()
        apart = np.linalg.norm(places[:, None] - places, axis=-1)
        nearest = np.argsort(apart + np.where(np.eye(c.nodes, dtype=bool), np.inf, 0), 1, "stable")[:, : c.neighbours]
        joined = np.zeros((c.nodes, c.nodes), bool)
        np.put_along_axis(joined, nearest, True, 1)
        joined |= joined.T
        weights = np.where(joined, np.exp(-apart / apart[joined].mean()), 0)
        return Graph.of(np.round(weights, 6))

    def splits(self) -> dict[str, FrameSplit]:
        """See :class:`FrameSource`."""
        c = self.config
        share = (self.graph.laplacian(largest=True) + np.eye(c.nodes)) / 2  # L by its largest eigenvalue
        turning = 4 * c.speed**2 * share
        bumps = self._bumps()
        counts = {"train": c.sequences, "valid": max(1, c.sequences // 10), "test": max(1, c.sequences // 10)}
        return {
            split: FrameSplit.of(
                [self._sequence(split, number, turning, bumps) for number in range(count)], f"the {split} sequences"
            )
            for split, count in counts.items()
        }

    def _bumps(self) -> np.ndarray:
        """(nodes, nodes): around each node, exp(-d²) at d edges from it."""
        joined = self.graph.matrix() > 0
        far = np.full(joined.shape, np.inf)
        reached = np.eye(len(far), dtype=bool)
        for distance in range(len(far)):
            far[reached & np.isinf(far)] = distance
            reached = (reached.astype(np.int64) @ (joined | np.eye(len(far), dtype=bool))) > 0
        return np.exp(-np.square(far))

    def _sequence(self, split: str, number: int, turning: np.ndarray, bumps: np.ndarray) -> np.ndarray:
        c: Any = self.config
        generator = RandomStreams(c.seed).generator(f"graph_waves.{split}", number)
        centres = torch.randint(0, c.nodes, (2,), generator=generator).tolist()
        sizes = torch.randn(2, generator=generator, dtype=torch.float64).numpy()
        wave = sizes @ bumps[centres]
        wave = before = wave / (wave.std() or 1.0)
        frames = c.noise * torch.randn(c.length, c.nodes, generator=generator, dtype=torch.float64).numpy()
        for frame in frames:
            frame += wave
            wave, before = 2 * wave - before - turning @ wave, wave
        return frames.astype(np.float32)
