"""Recurrent memory tokens."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.core.parameters import ParameterRule
from unrolled.model.memory.base import Ended, Memory, MemoryConfig

__all__ = ["TokenMemory", "TokensConfig", "VectorsState"]


class TokensConfig(MemoryConfig):
    """Options of recurrent memory tokens."""

    name: Literal["tokens"] = "tokens"
    slots: int = Field(default=8, ge=0, le=1 << 14, description="memory vectors M")


class VectorsState(NamedTuple):
    """fill, count: see Memory. slots: (batch, vectors, width)."""

    fill: Tensor
    count: Tensor
    slots: Tensor


class TokenMemory(Memory):
    r"""Memory vectors before and behind the tokens of each segment (Bulatov, Kuratov and Burtsev 2022,
    arXiv:2207.06881: the Recurrent Memory Transformer).

    .. math::
        [\,\cdot\,;\, Y_s;\, m_{s+1}] = \mathrm{Stack}([m_s;\, x_s;\, m_s])

    The same vectors stand at the M places before the tokens, from where they are read, and at the M places behind them,
    whose outputs are the next segment's. The stack is causal, so that the last places alone see the segment, as in the
    authors' decoder; nothing that stands behind a token reaches its output, so that a segment may come in any pieces.
    The first ones are trained, drawn N(0, s²) with the deviation s of the embeddings. Their code detaches a local name
    alone, so that gradients cross all segments whatever is asked for; here ``depth`` and the window say how many.

    Parameters MI. State MI numbers a row.
    """

    Config = TokensConfig
    State = VectorsState
    EXAMPLES = (TokensConfig(segment=5, slots=2), TokensConfig(segment=3, slots=1, state="carry"))

    def __init__(self, config: Any, in_width: int, reads: Sequence[int], writes: Sequence[int], out_width: int):
        super().__init__(config, in_width, reads, writes, out_width)
        if config.slots:
            self.need_one_width("what the stack reads and of what it puts out", in_width, out_width)
        self.vectors = nn.Parameter(torch.empty(config.slots, in_width))
        self.parameter_rules = {"vectors": ParameterRule(decay=False, drawn=False)}

    def start(self, std: float) -> None:
        """See :meth:`Memory.start`."""
        if not self.vectors.is_meta:
            nn.init.normal_(self.vectors, 0, std)

    def begin(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> VectorsState:
        """Zeros, in whose place the trained vectors are read."""
        slots = torch.zeros(batch, self.config.slots, self.in_width, device=device, dtype=dtype)
        return VectorsState(*self.counts(batch, device), slots)

    def prefix(self, memory: VectorsState) -> Tensor | None:
        """The memory, or where there is none yet, the trained vectors."""
        if not self.config.slots:
            return None
        return torch.where((memory.count == 0).view(-1, 1, 1), self.vectors, memory.slots)

    def suffix(self, memory: VectorsState) -> Tensor | None:
        """As before the tokens."""
        return self.prefix(memory)

    def update(self, memory: VectorsState, ended: Ended) -> VectorsState:
        """What was put out at the write places."""
        return memory if ended.written is None else memory._replace(slots=ended.written)

    @property
    def extra_places(self) -> int:
        """2M."""
        return 2 * self.config.slots
