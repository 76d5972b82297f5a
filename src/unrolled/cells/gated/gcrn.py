"""Graph convolutional recurrent network: an LSTM on every node of a graph."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, StepCell, Tap, Weights
from unrolled.cells.matrix.base import by_fan_in, fill
from unrolled.core.errors import UsageError
from unrolled.core.graph import MOST_NODES, Graph, checked
from unrolled.kernels.cell_loop import silent

__all__ = ["GCRN", "GCRNConfig", "GraphState"]


class GCRNConfig(CellConfig):
    """Options of the graph convolutional recurrent network."""

    name: Literal["gcrn"] = "gcrn"
    graph: Literal["ring", "data"] = Field(
        default="ring",
        description="every node beside the next one; or the graph of the data: that of frames, or of a text's "
        "vocabulary, by how often two symbols stand side by side; it is kept in the run as nodes and edges",
    )
    nodes: int = Field(default=2, ge=1, le=MOST_NODES, description="nodes of a ring, or of the edges")
    edges: tuple[tuple[int, int, float], ...] | None = Field(
        default=None, description="(node, node, weight) of another graph than a ring"
    )
    terms: int = Field(default=3, ge=1, le=64, description="terms K of the Chebyshev polynomial; K - 1 edges are seen")
    largest: bool = Field(
        default=True, description="scale the Laplacian by its largest eigenvalue, as the authors (false: by 2)"
    )
    peephole: bool = Field(default=True, description="gates see c, as in the paper; the authors' code has none")
    forget_bias: float = Field(default=0.0, ge=-1e4, le=1e4, description="initial bias of the forget gate")

    @model_validator(mode="after")
    def _edges(self) -> "GCRNConfig":
        checked(self.nodes, self.edges or ())
        return self

    def with_graph(self, graph: Callable[[], Graph]) -> Self:
        """See :meth:`CellConfig.with_graph`."""
        if self.graph != "data" or self.edges is not None:
            return self
        found = graph()
        if found.nodes > MOST_NODES:
            raise UsageError(
                f"a graph of {found.nodes:,} nodes is too large for a gcrn, which takes {MOST_NODES} at most."
            )
        return self.model_copy(update={"nodes": found.nodes, "edges": found.edges})

    def shape(self) -> Graph:
        """The graph. Raises UsageError where it is that of data which are not known here."""
        if self.edges is not None:
            return Graph(self.nodes, self.edges)
        if self.graph == "data":
            raise UsageError(
                "the graph of a gcrn is to be that of the data, and these have none; set model.cell.graph=ring, or "
                "give model.cell.nodes and model.cell.edges."
            )
        pairs = {(min(a, b), max(a, b)) for a, b in ((k, (k + 1) % self.nodes) for k in range(self.nodes)) if a != b}
        return Graph(self.nodes, tuple((a, b, 1.0) for a, b in sorted(pairs)))


class GraphState(NamedTuple):
    """h, c: (batch, maps * nodes), maps one after another, each over the nodes."""

    h: Tensor
    c: Tensor


class GCRN(StepCell):
    r"""Graph convolutional recurrent network, model 2 (Seo, Defferrard, Vandergheynst and Bresson 2016,
    arXiv:1612.07659): an LSTM with peepholes on every node, whose matrices are polynomials of the graph's Laplacian.

    .. math::
        W * x &= \sum_{k < K} W_k\, T_k(\tilde L)\, x, \quad T_0 = I, \; T_1 = \tilde L, \;
        T_k = 2 \tilde L T_{k-1} - T_{k-2} \\
        i_t &= \sigma(W_{xi} * x_t + W_{hi} * h_{t-1} + w_i \odot c_{t-1} + b_i) \\
        f_t &= \sigma(W_{xf} * x_t + W_{hf} * h_{t-1} + w_f \odot c_{t-1} + b_f) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot \tanh(W_{xg} * x_t + W_{hg} * h_{t-1} + b_g) \\
        o_t &= \sigma(W_{xo} * x_t + W_{ho} * h_{t-1} + w_o \odot c_t + b_o), \quad h_t = o_t \odot \tanh(c_t)

    :math:`\tilde L = 2 L / \lambda - I`, L = I - D^(-1/2) A D^(-1/2); a node without edges has 0 for D^(-1/2). Weights
    are the same at all nodes, also peepholes and biases (the paper has a peephole for each node). With K = 1 no node
    knows of another. An input is its features one after another, each over the nodes, and so is the output with its
    maps, as the head of frames ``values`` with ``maps`` and the head ``nodes`` read it. An input that is no whole
    features goes through a matrix first, to one. Matrices and peepholes start uniform in ±0.1, biases at 0.

    The blocks of ``weight_ih`` and ``weight_hh`` are i, f, g, o; columns are features, K terms of each. Parameters with
    N nodes, F features and H maps: 4K(FH + H²) + 4H, and 3H of peepholes.
    """

    Config = GCRNConfig
    State = GraphState
    EXAMPLES = (
        GCRNConfig(),
        GCRNConfig(nodes=3, edges=((0, 1, 0.5),), terms=4, largest=False, peephole=False, forget_bias=1.0),
        GCRNConfig(nodes=4, terms=1),
    )
    EQUATION = "an LSTM on every node; W x = sum of W_k T_k(L) x over the graph"
    recurrent_weights = ("weight_hh",)

    def __init__(self, in_width: int, width: int, config: GCRNConfig):
        super().__init__(in_width, width, config)
        nodes, features, maps = self._sizes(config, in_width, width)
        self.entry = nn.Parameter(torch.empty(nodes, in_width)) if in_width % nodes else None
        self.weight_ih = nn.Parameter(torch.empty(4 * maps, features * config.terms))
        self.weight_hh = nn.Parameter(torch.empty(4 * maps, maps * config.terms))
        self.bias = nn.Parameter(torch.empty(4 * maps))
        if config.peephole:
            self.peephole_i = nn.Parameter(torch.empty(maps))
            self.peephole_f = nn.Parameter(torch.empty(maps))
            self.peephole_o = nn.Parameter(torch.empty(maps))
        # made here and no buffer: nothing rounds it, and a graph that is recorded finds it there; sizes need none
        self._terms = None if self.bias.is_meta else _terms(config.shape(), config.largest, config.terms)
        self.reset_parameters()

    @staticmethod
    def _sizes(config: Any, in_width: int, width: int) -> tuple[int, int, int]:
        """Nodes, features of each, and maps."""
        nodes = config.nodes
        return nodes, in_width // nodes if in_width % nodes == 0 else 1, width // nodes

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        fill(by_fan_in, [self.entry])
        for name, parameter in self.named_parameters():
            if name not in ("entry", "bias") and not parameter.is_meta:
                nn.init.uniform_(parameter, -0.1, 0.1)
        if not self.bias.is_meta:
            self.bias.zero_()
            self.bias.chunk(4)[1].fill_(self.config.forget_bias)

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """The nodes."""
        config.shape()
        return config.nodes

    def effective_weights(self) -> Mapping[str, Tensor]:
        """The parameters, and ``terms``: T_1, T_2, ... of the Laplacian, ((K - 1) nodes, nodes)."""
        terms = self._terms
        if terms is None:
            terms = _terms(self.config.shape(), self.config.largest, self.config.terms)
        return {**dict(self.named_parameters()), "terms": terms.to(self.bias)}

    def _of_graph(self, x: Tensor, w: Weights) -> Tensor:
        """(..., features * nodes) -> (..., nodes, features * K): what each node sees."""
        maps = x.unflatten(-1, (-1, self.config.nodes)).unsqueeze(-2)
        if self.config.terms > 1:
            others = w.linear("terms", maps.flatten(0, -2)).view(*maps.shape[:-2], -1, self.config.nodes)
            maps = torch.cat([maps, others], -2)
        return maps.flatten(-3, -2).transpose(-1, -2)

    def project(self, x: Tensor, w: Weights) -> Tensor:
        """W_x * x + b, (..., nodes, 4 maps)."""
        x = w.linear("entry", x) if "entry" in w else x
        return w.linear("weight_ih", self._of_graph(x, w)) + w["bias"]

    def step(self, pre: Tensor, state: GraphState, w: Weights, tap: Tap) -> tuple[Tensor, GraphState]:
        """One step of the class's equations."""
        seen = self._of_graph(state.h, w).flatten(0, 1)
        gates = w.linear("weight_hh", seen, pre.flatten(0, 1)).view_as(pre).transpose(-1, -2)
        i_pre, f_pre, g_pre, o_pre = gates.chunk(4, -2)
        before = state.c.unflatten(-1, (-1, self.config.nodes))

        def peep(pre: Tensor, c: Tensor, gate: str) -> Tensor:
            return pre + w[f"peephole_{gate}"].unsqueeze(-1) * c if self.config.peephole else pre

        i_pre, f_pre = peep(i_pre, before, "i"), peep(f_pre, before, "f")
        i, f, g = torch.sigmoid(i_pre), torch.sigmoid(f_pre), torch.tanh(g_pre)
        c = f * before + i * g
        o_pre = peep(o_pre, c, "o")
        o = torch.sigmoid(o_pre)
        h = (o * torch.tanh(c)).flatten(1)
        if tap is not silent:
            inner = {"i_pre": i_pre, "f_pre": f_pre, "g_pre": g_pre, "o_pre": o_pre, "i": i, "f": f, "g": g, "o": o}
            for name, value in {**inner, "c": c}.items():
                tap(name, value.flatten(1))
            tap("h", h)
        return h, GraphState(h, c.flatten(1))

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """4K(FH + H²) + 4H, 3H of peepholes; N I where the input goes through a matrix."""
        nodes, features, maps = cls._sizes(config, in_width, width)
        own = 4 * config.terms * maps * (features + maps) + (7 if config.peephole else 4) * maps
        return own + (nodes * in_width if in_width % nodes else 0)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """8NKH(F + H), and 2(K - 1)N²(F + H) of the graph; 2NI where the input goes through a matrix."""
        nodes, features, maps = cls._sizes(config, in_width, width)
        own = 8 * nodes * config.terms * maps * (features + maps)
        own += 2 * (config.terms - 1) * nodes**2 * (features + maps)
        return own + (2 * nodes * in_width if in_width % nodes else 0)


@lru_cache(maxsize=16)
def _terms(graph: Graph, largest: bool, count: int) -> Tensor:
    """T_1, ..., T_(count - 1) of a graph's Laplacian, one below the other. Of float64, so that a model of that type has
    them exactly."""
    laplacian = graph.laplacian(largest)
    found = [np.eye(graph.nodes), laplacian]
    while len(found) < count:
        found.append(2 * laplacian @ found[-1] - found[-2])
    return torch.from_numpy(np.concatenate(found[1:count]) if count > 1 else np.zeros((0, graph.nodes)))
