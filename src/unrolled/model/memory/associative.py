"""An associative memory of every layer, written from memory tokens."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from unrolled.core.parameters import ParameterRule
from unrolled.model.memory.base import Ended, Memory, MemoryConfig

__all__ = ["AssociativeConfig", "AssociativeMemory", "dpfp"]


class AssociativeConfig(MemoryConfig):
    """Options of an associative memory."""

    name: Literal["associative"] = "associative"
    slots: int = Field(default=8, ge=0, le=1 << 14, description="memory vectors M behind each segment")
    keys: int = Field(default=16, ge=1, le=1 << 12, description="width of keys before their features are made")
    rolls: int = Field(default=3, ge=1, le=64, description="rolls of the features (nu); 2 nu times as many as the keys")
    epsilon: float = Field(default=1e-5, ge=0, le=1, description="what denominators add")


class AssociativeState(NamedTuple):
    """fill, count: see Memory. matrix: (batch, layers, features, width). sums: (batch, layers, features)."""

    fill: Tensor
    count: Tensor
    matrix: Tensor
    sums: Tensor


def dpfp(x: Tensor, rolls: int) -> Tensor:
    """Features (..., 2 nu d) of keys (..., d): r times r rolled by 1, ..., nu, with r = relu([x; -x]) (Schlag et al.
    2021, arXiv:2102.11174, deterministic parameter-free projection)."""
    r = torch.cat([relu(x), relu(-x)], -1)
    return torch.cat([r * r.roll(j, -1) for j in range(1, rolls + 1)], -1)


class AssociativeMemory(Memory):
    r"""A matrix in each layer that a segment's memory tokens write to and all later tokens read from (Rodkin et al.
    2024, arXiv:2407.04841: the Associative Recurrent Memory Transformer).

    .. math::
        x &\leftarrow x + \frac{\phi(W_q x)^\top A}{z^\top \phi(W_q x) + \epsilon} \quad\text{before each layer} \\
        v_i &= W_v m_i - \frac{\phi(k_i)^\top A}{z^\top\phi(k_i) + \epsilon}, \quad k_i = W_k m_i \\
        A &\leftarrow A + \sum_i \sigma(w^\top m_i + b)\, \phi(k_i) v_i^\top, \quad
        z \leftarrow z + \sum_i \gamma_i \phi(k_i) \\
        \gamma_i &= \min(1, \max(0, 1 - z^\top\phi(k_i) / (|\phi(k_i)|^2 + \epsilon))) \quad\text{without gradient}

    The M places behind a segment's tokens hold the same trained vectors each time; m_i are what the layer puts out
    there. All of them read the matrix before any writes. The published code adds its epsilon to the numerator of
    gamma's fraction too. W_v starts at 0, so that an untrained memory changes nothing.

    Parameters MI, and for each layer 2KN + N² + N + 1 with keys of width K. State 2 nu K (N + 1) numbers a layer.
    """

    Config = AssociativeConfig
    State = AssociativeState
    EXAMPLES = (AssociativeConfig(segment=5, slots=2, keys=3), AssociativeConfig(segment=3, slots=1, keys=2, rolls=1))
    listens = attends = True

    def __init__(self, config: Any, in_width: int, reads: Sequence[int], writes: Sequence[int], out_width: int):
        super().__init__(config, in_width, reads, writes, out_width)
        width = self.need_one_width("what all layers read and put out", *reads, *writes)
        layers, self.size = len(reads), 2 * config.rolls * config.keys
        self.vectors = nn.Parameter(torch.empty(config.slots, in_width))
        self.query, self.key = (nn.Parameter(torch.empty(layers, config.keys, width)) for _ in range(2))
        self.value = nn.Parameter(torch.zeros(layers, width, width))
        self.gate, self.gate_bias = nn.Parameter(torch.empty(layers, width)), nn.Parameter(torch.zeros(layers))
        undrawn = ParameterRule(drawn=False)
        self.parameter_rules = {"vectors": ParameterRule(decay=False, drawn=False), "value": undrawn}
        if not self.query.is_meta:
            for weight in (self.query, self.key, self.gate):
                nn.init.uniform_(weight, -(width**-0.5), width**-0.5)

    def start(self, std: float) -> None:
        """See :meth:`Memory.start`."""
        nn.init.normal_(self.vectors, 0, std)

    def begin(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> AssociativeState:
        """Nothing was written."""
        shape = (batch, len(self.reads), self.size)
        sums = torch.zeros(shape, device=device, dtype=dtype)
        return AssociativeState(*self.counts(batch, device), sums.new_zeros(*shape, self.reads[0]), sums)

    def suffix(self, memory: AssociativeState) -> Tensor | None:
        """The trained vectors."""
        return self.vectors.expand(len(memory.fill), -1, -1) if self.config.slots else None

    def featured(self, key: Tensor) -> Tensor:
        """Features of keys (..., K), none of them negative."""
        return dpfp(key, self.config.rolls)

    def recall(self, layer: int, key: Tensor, memory: AssociativeState) -> Tensor:
        """What is stored under keys (batch, time, K) of a layer: (batch, time, width)."""
        features = self.featured(key)
        total = features @ memory.sums[:, layer].unsqueeze(-1)
        return features @ memory.matrix[:, layer] / (total + self.config.epsilon).clamp_min(_TINY)

    def before(self, layer: int, x: Tensor, memory: AssociativeState) -> Tensor:
        """See :meth:`Memory.before`."""
        return x + self.recall(layer, linear(x, self.query[layer]), memory)

    def update(self, memory: AssociativeState, ended: Ended) -> AssociativeState:
        """Writes of all layers."""
        if ended.written is None:
            return memory
        matrices, sums = [], []
        for layer, m in enumerate(ended.layers):
            matrix, total = self.write(layer, linear(m, self.key[layer]), linear(m, self.value[layer]), m, memory)
            matrices.append(matrix)
            sums.append(total)
        return memory._replace(matrix=torch.stack(matrices, 1), sums=torch.stack(sums, 1))

    def write(
        self, layer: int, key: Tensor, value: Tensor, m: Tensor, memory: AssociativeState
    ) -> tuple[Tensor, Tensor]:
        """Matrix and sums of a layer after writes of keys (batch, M, K) and values (batch, M, width)."""
        beta = torch.sigmoid(m @ self.gate[layer] + self.gate_bias[layer]).unsqueeze(-1)
        return self.store(layer, key, value, beta, memory)

    def store(
        self, layer: int, key: Tensor, value: Tensor, beta: Tensor | float, memory: AssociativeState
    ) -> tuple[Tensor, Tensor]:
        """:meth:`write` with shares ``beta`` (batch, M, 1) of what is new."""
        features, sums = self.featured(key), memory.sums[:, layer]
        new = value - self.recall(layer, key, memory)
        square = features.square().sum(-1, keepdim=True)
        share = 1 - features @ sums.unsqueeze(-1) / (square + self.config.epsilon).clamp_min(_TINY)
        gamma = share.clamp(0, 1).detach()
        matrix = memory.matrix[:, layer] + features.transpose(1, 2) @ (beta * new)
        return matrix, sums + (gamma * features).sum(1)

    def flops_per_token(self) -> int:
        """Reading: 2KN and 2 nu K (2N + 2) a layer; writing, over the tokens of a segment, left out."""
        width = self.reads[0]
        return len(self.reads) * (2 * self.config.keys * width + 2 * self.size * (width + 1))

    @property
    def extra_places(self) -> int:
        """M."""
        return self.config.slots


_TINY = 1e-30
"""Of denominators with epsilon 0, where nothing is stored: 0 / 0 is 0 then."""
