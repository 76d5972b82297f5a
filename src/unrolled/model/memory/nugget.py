"""The tokens of each segment that a scorer finds worth keeping."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from unrolled.core.errors import UsageError
from unrolled.model.memory.base import Ended, MemoryConfig
from unrolled.model.memory.buffered import BufferedMemory
from unrolled.model.memory.reading import Attend

__all__ = ["NuggetConfig", "NuggetMemory"]


class NuggetConfig(MemoryConfig):
    """Options of nuggets."""

    name: Literal["nugget"] = "nugget"
    ratio: float = Field(default=0.125, gt=0, le=1, description="share of a segment's tokens that are kept")
    most: int = Field(default=4, ge=1, le=1 << 12, description="segments whose nuggets are kept, the last ones")
    heads: int = Field(default=4, ge=1, le=4096, description="heads with which tokens read them")
    straight: bool = Field(
        default=False, description="scores reach the scorer's gradient alone and no output (straight-through)"
    )
    select: Literal["scorer", "stride"] = Field(
        default="scorer", description="which tokens are kept: those of the highest scores, or every 1/ratio-th"
    )


class NuggetState(NamedTuple):
    """fill, count: see Memory. vectors: (batch, kept, width), newest last, and their scores: (batch, kept). there:
    boolean (batch, kept), which of them there are. seen: outputs of the open segment."""

    fill: Tensor
    count: Tensor
    vectors: Tensor
    scores: Tensor
    there: Tensor
    seen: Tensor


class NuggetMemory(BufferedMemory):
    r"""The r-th part of a segment's outputs that a small network scores highest, attended to by all later tokens (Qin
    and Van Durme 2023, arXiv:2310.01732: Nugget).

    .. math::
        s_t = w^\top \mathrm{relu}(W y_t + b), \quad K = \mathrm{top}_{\lceil rT \rceil}(s), \quad
        x \leftarrow x + \mathrm{MHA}_{\mathrm{softmax}(q^\top k + s)}(x, y_K) \text{ before each layer}

    The last token of a segment is always kept, and they stay in the order of the text. Scores are added to those of
    the attention, which is how the scorer learns; with ``straight`` s - stop(s) is. The paper has an encoder whose
    decoder attends to the nuggets of a whole text, with scores of a lower layer's features; here later segments attend
    to those of the last ``most`` segments, and the outputs themselves are scored.

    Parameters O² + 2O, and 2N² + 2NO a layer. State ``most`` ceil(rS)(O + 1) + SO numbers a row.
    """

    Config = NuggetConfig
    State = NuggetState
    EXAMPLES = (
        NuggetConfig(segment=5, ratio=0.5, most=2, heads=2),
        NuggetConfig(segment=4, ratio=0.25, most=3, heads=1, straight=True, least=2),
        NuggetConfig(segment=4, ratio=0.5, most=2, heads=2, select="stride"),
    )

    def __init__(self, config: Any, in_width: int, reads: Sequence[int], writes: Sequence[int], out_width: int):
        super().__init__(config, in_width, reads, writes, out_width)
        for size in reads:
            if size % config.heads:
                raise UsageError(
                    f"a layer reads {size} numbers, which {config.heads} heads cannot share; give a divisor."
                )
        self.up, self.up_bias = nn.Parameter(torch.empty(out_width, out_width)), nn.Parameter(torch.zeros(out_width))
        self.score = nn.Parameter(torch.empty(1, out_width))
        self.readers = nn.ModuleList(Attend(size, out_width, config.heads) for size in reads)
        if not self.up.is_meta:
            for weight in (self.up, self.score):
                nn.init.uniform_(weight, -(out_width**-0.5), out_width**-0.5)

    def kept(self, tokens: int) -> int:
        """How many of a segment's tokens are kept."""
        return min(tokens, max(1, math.ceil(self.config.ratio * tokens)))

    def begin(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> NuggetState:
        """Nothing is kept."""
        size = self.config.most * self.kept(self.config.segment)
        vectors = torch.zeros(batch, size, self.out_width, device=device, dtype=dtype)
        there = torch.zeros(batch, size, dtype=torch.bool, device=device)
        empty = self.empty(batch, device, dtype)
        return NuggetState(*self.counts(batch, device), vectors, vectors.new_zeros(batch, size), there, empty)

    def before(self, layer: int, x: Tensor, memory: NuggetState) -> Tensor:
        """See :meth:`Memory.before`."""
        level = memory.scores - memory.scores.detach() if self.config.straight else memory.scores
        return x + self.readers[layer](x, memory.vectors, level, memory.there)

    def chosen(self, scores: Tensor, fill: Tensor) -> tuple[Tensor, Tensor]:
        """Places (batch, k) of the tokens that are kept, in the order of the text, and which of them there are.

        Args:
            scores: (batch, segment). fill: int64 (batch,), tokens of each segment.
        """
        size, steps = self.kept(self.config.segment), torch.arange(self.config.segment, device=scores.device)
        wanted = torch.tensor([self.kept(count) if count else 0 for count in fill.tolist()], device=scores.device)
        last = steps == (fill - 1).unsqueeze(1)
        if self.config.select == "stride":
            # the last token and those whole strides before it; what lies before the segment goes to a spare column
            stride = (fill / wanted.clamp_min(1)).unsqueeze(1)
            marks = (fill.unsqueeze(1) - 1 - torch.floor(steps * stride)).long()
            marks = torch.where(marks < 0, len(steps), marks)
            rank = scores.new_full((len(scores), len(steps) + 1), -1.0)
            rank = rank.scatter(1, marks, (1 - steps / len(steps)).to(rank).expand_as(marks))[:, :-1]
        else:
            rank = scores.detach()
        rank = rank.masked_fill(steps >= fill.unsqueeze(1), -torch.inf).masked_fill(last, torch.inf)
        best = rank.topk(size, 1).indices
        there = torch.arange(size, device=scores.device) < wanted.unsqueeze(1)
        # absent ones stand in front, so that the newest is last
        places = torch.where(there, best, -1).sort(1).values
        return places, places >= 0

    def update(self, memory: NuggetState, ended: Ended) -> NuggetState:
        """Keeps the best of the segment, and lets the oldest go."""
        hidden = relu(linear(memory.seen, self.up, self.up_bias))
        scores = linear(hidden, self.score).squeeze(-1)
        places, there = self.chosen(scores, memory.fill)
        index = places.clamp_min(0)
        vectors = memory.seen.gather(1, index.unsqueeze(-1).expand(-1, -1, self.out_width)) * there.unsqueeze(-1)
        found = scores.gather(1, index) * there
        size = places.shape[1]
        return memory._replace(
            vectors=torch.cat([memory.vectors, vectors], 1)[:, size:],
            scores=torch.cat([memory.scores, found], 1)[:, size:],
            there=torch.cat([memory.there, there], 1)[:, size:],
            seen=torch.zeros_like(memory.seen),
        )

    def flops_per_token(self) -> int:
        """The scorer's 2O² + 2O; reading of each layer, 4N² + 4KN, without its keys and values."""
        kept = self.config.most * self.kept(self.config.segment)
        own = 2 * self.out_width * (self.out_width + 1)
        return own + sum(4 * size * size + 4 * kept * size for size in self.reads)
