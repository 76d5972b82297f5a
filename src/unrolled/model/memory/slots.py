"""Memory slots that tokens attend to, and that attend to a segment."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from unrolled.core.errors import UsageError
from unrolled.core.parameters import ParameterRule
from unrolled.model.memory.base import Ended, MemoryConfig
from unrolled.model.memory.buffered import BufferedMemory, BufferedState
from unrolled.model.memory.reading import Attend

__all__ = ["SlotMemory", "SlotsConfig"]


class SlotsConfig(MemoryConfig):
    """Options of memory slots."""

    name: Literal["slots"] = "slots"
    slots: int = Field(default=16, ge=1, le=1 << 14, description="memory slots M")
    heads: int = Field(default=4, ge=1, le=4096, description="heads with which tokens read them")
    temperature: float = Field(default=0.25, gt=0, le=1e3, description="of the softmax with which slots are written")


class SlotMemory(BufferedMemory):
    r"""Slots of constant number, read by attention in every layer and written by attention to the segment (Wu, Lan, Gu
    and Yu 2020, arXiv:2010.06891: Memformer).

    .. math::
        x &\leftarrow x + W_o\,\mathrm{MHA}(x, m) \quad\text{before each layer} \\
        m_i' &= \sum_j a_{ij} v_j, \quad a_i = \mathrm{softmax}([q_i^\top k_i,\, q_i^\top K_y] / \tau) \\
        m_i &\leftarrow \frac{m_i' + b_i}{|m_i' + b_i|}

    q_i = W_q m_i; a slot attends to itself, by W_k m_i and W_v m_i, and to the segment's outputs, by W_k y and W_v y,
    not to the other slots. The trained b is also where all begin, b / \|b\|, and where a slot that is not written to
    tends: it forgets. With ``checkpoint`` a segment is computed again in the backward pass from the slots before it
    (memory replay back-propagation). The paper has the slots in an encoder whose tokens see a whole segment; here the
    stack is causal. Its temperature is not stated; scores are divided by it alone. Outputs of another width than the
    slots go through a matrix.

    Parameters MN + 3N² (+ NO), and 4N² a layer. State MN + SO numbers a row, S the tokens of a segment.
    """

    Config = SlotsConfig
    EXAMPLES = (SlotsConfig(segment=5, slots=3, heads=2), SlotsConfig(segment=3, slots=2, heads=1, state="carry"))

    def __init__(self, config: Any, in_width: int, reads: Sequence[int], writes: Sequence[int], out_width: int):
        super().__init__(config, in_width, reads, writes, out_width)
        for size in reads:
            if size % config.heads:
                raise UsageError(
                    f"a layer reads {size} numbers, which {config.heads} heads cannot share; give a divisor."
                )
        self.base = nn.Parameter(torch.empty(config.slots, out_width))
        self.query, self.key, self.value = (nn.Parameter(torch.empty(out_width, out_width)) for _ in range(3))
        self.readers = nn.ModuleList(Attend(size, out_width, config.heads) for size in reads)
        self.parameter_rules = {"base": ParameterRule(decay=False, drawn=False)}
        if not self.base.is_meta:
            nn.init.normal_(self.base, 0, out_width**-0.5)
            for weight in (self.query, self.key, self.value):
                nn.init.uniform_(weight, -(out_width**-0.5), out_width**-0.5)

    def begin(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> BufferedState:
        """Slots b / |b|."""
        slots = normalize(self.base, dim=-1).to(device=device, dtype=dtype or self.base.dtype)
        return BufferedState(*self.counts(batch, device), slots.expand(batch, -1, -1), self.empty(batch, device, dtype))

    def before(self, layer: int, x: Tensor, memory: BufferedState) -> Tensor:
        """See :meth:`Memory.before`."""
        return x + self.readers[layer](x, memory.vectors)

    def scores(self, memory: BufferedState) -> Tensor:
        """(batch, M, 1 + S): of each slot with itself, then with the segment's outputs."""
        query, seen = linear(memory.vectors, self.query), linear(memory.seen, self.key)
        own = (query * linear(memory.vectors, self.key)).sum(-1, keepdim=True)
        tokens = query @ seen.transpose(1, 2)
        tokens = tokens.masked_fill(~self.present(memory).unsqueeze(1), -torch.inf)
        return torch.cat([own, tokens], -1) / self.config.temperature

    def update(self, memory: BufferedState, ended: Ended) -> BufferedState:
        """Writes, then forgets."""
        weights = self.scores(memory).softmax(-1)
        kept = weights[..., :1] * linear(memory.vectors, self.value)
        written = kept + weights[..., 1:] @ linear(memory.seen, self.value)
        slots = normalize(written + self.base, dim=-1)
        return memory._replace(vectors=slots, seen=torch.zeros_like(memory.seen))

    def flops_per_token(self) -> int:
        """Reading of each layer, without its keys and values, which are made once a piece: 4N² + 4MN."""
        return sum(4 * size * size + 4 * self.config.slots * size for size in self.reads)
