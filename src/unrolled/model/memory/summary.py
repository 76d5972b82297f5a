"""Summary vectors of all segments, one after another."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.core.parameters import ParameterRule
from unrolled.model.memory.base import Ended, Memory, MemoryConfig

__all__ = ["SummaryConfig", "SummaryMemory"]


class SummaryConfig(MemoryConfig):
    """Options of summary vectors."""

    name: Literal["summary"] = "summary"
    vectors: int = Field(default=4, ge=0, le=1 << 14, description="summary vectors k of a segment")
    most: int = Field(default=16, ge=1, le=1 << 16, description="segments whose summaries are kept, the last ones")

    @model_validator(mode="after")
    def _resets(self) -> "SummaryConfig":
        if self.state == "carry":
            raise UsageError("summary vectors begin a segment at a fresh state of the cells; set memory.state=reset.")
        return self


class SummaryState(NamedTuple):
    """fill, count: see Memory. kept: (batch, most k, width), newest last."""

    fill: Tensor
    count: Tensor
    kept: Tensor


class SummaryMemory(Memory):
    r"""Vectors behind each segment whose outputs stand before all later ones (Chevalier, Wettig, Ajith and Chen 2023,
    arXiv:2305.14788: AutoCompressors).

    .. math::
        [\,\cdot\,;\, Y_s;\, \sigma_s] = \mathrm{Stack}([\sigma_1; \dots; \sigma_{s-1};\, x_s;\, e])

    The k trained vectors e behind a segment give its summary. The published form keeps the summaries of all segments;
    here of the last ``most``, so that the state has one size. ``least`` draws the lengths of training, as the paper
    does. Its code cuts gradients between pairs of segments; ``depth=1`` does so, counted from the window's end.

    Parameters kI. State ``most`` kI numbers a row.
    """

    Config = SummaryConfig
    State = SummaryState
    EXAMPLES = (SummaryConfig(segment=4, vectors=2, most=3), SummaryConfig(segment=3, vectors=1, most=2, least=2))

    def __init__(self, config: Any, in_width: int, reads: Sequence[int], writes: Sequence[int], out_width: int):
        super().__init__(config, in_width, reads, writes, out_width)
        if config.vectors:
            self.need_one_width("what the stack reads and of what it puts out", in_width, out_width)
        self.vectors = nn.Parameter(torch.empty(config.vectors, in_width))
        self.parameter_rules = {"vectors": ParameterRule(decay=False, drawn=False)}

    def start(self, std: float) -> None:
        """See :meth:`Memory.start`."""
        nn.init.normal_(self.vectors, 0, std)

    def begin(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> SummaryState:
        """Zeros, which are not read."""
        kept = torch.zeros(batch, self.config.most * self.config.vectors, self.in_width, device=device, dtype=dtype)
        return SummaryState(*self.counts(batch, device), kept)

    def prefix(self, memory: SummaryState) -> Tensor | None:
        """As many as the row with the most has."""
        longest = int(self.places(memory).max())
        return memory.kept[:, -longest:] if longest else None

    def places(self, memory: SummaryState) -> Tensor:
        """See :meth:`Memory.places`."""
        return memory.count.clamp_max(self.config.most) * self.config.vectors

    def suffix(self, memory: SummaryState) -> Tensor | None:
        """The trained vectors."""
        return self.vectors.expand(len(memory.fill), -1, -1) if self.config.vectors else None

    def update(self, memory: SummaryState, ended: Ended) -> SummaryState:
        """One summary more, the oldest out."""
        if ended.written is None:
            return memory
        return memory._replace(kept=torch.cat([memory.kept, ended.written], 1)[:, self.config.vectors :])

    @property
    def extra_places(self) -> int:
        """k, and k ``most`` of a long text."""
        return self.config.vectors * (1 + self.config.most)
