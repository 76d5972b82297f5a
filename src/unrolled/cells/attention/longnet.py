"""LongNet: dilated attention."""

import itertools
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from unrolled.cells.attention.base import AttentionCell, RingState
from unrolled.cells.base import CellConfig, ParameterRule
from unrolled.cells.matrix.base import by_fan_in, fill, xavier
from unrolled.cells.mixer import Given
from unrolled.cells.parts.heads import cut_heads
from unrolled.cells.parts.places import rotate
from unrolled.cells.parts.ring import places_of, turn_segment
from unrolled.core.errors import UsageError
from unrolled.kernels.bias_attention import EMPTY, bias_attention

__all__ = ["LongNet", "LongNetConfig"]


class LongNetConfig(CellConfig):
    """Options of dilated attention."""

    name: Literal["longnet"] = "longnet"
    heads: int = Field(default=4, ge=1, le=4096, description="heads")
    segments: tuple[int, ...] = Field(
        default=(16, 64, 256),
        min_length=1,
        description="tokens of a segment of each branch, each a multiple of the last",
    )
    dilations: tuple[int, ...] = Field(
        default=(1, 2, 4),
        min_length=1,
        description="of each branch: every so many tokens of a segment are kept; 1 first",
    )
    offsets: Literal["code", "paper"] = Field(
        default="code", description="which tokens a head keeps: neighbouring heads the same (code), or the next (paper)"
    )
    detach: bool = Field(
        default=False, description="no gradient through the weights of the branches, as in the public code"
    )
    positions: Literal["none", "rotary"] = Field(default="rotary", description="rotary; none")
    sub_norm: bool = Field(default=False, description="a layer norm before the last matrix")

    @model_validator(mode="after")
    def _nested(self) -> "LongNetConfig":
        segments, dilations = self.segments, self.dilations
        if len(segments) != len(dilations) or dilations[0] != 1 or min(dilations) < 1 or min(segments) < 2:
            raise UsageError(
                f"longnet has {len(segments)} segments and dilations {list(dilations)}; give one dilation a segment, "
                "the "
                "first 1, and segments from 2 tokens on."
            )
        for short, long in itertools.pairwise(segments):
            if long % short:
                raise UsageError(
                    f"a segment of {long} tokens is no multiple of {short}; let each hold whole ones of the last."
                )
        return self


class LongNet(AttentionCell):
    r"""Dilated attention of LongNet (Ding et al. 2023, arXiv:2307.02486): branches with segments that grow and of which
    ever fewer tokens are kept, joined by the sums of their weights.

    .. math::
        o_t &= \sum_i \alpha_i\, o_t^{(i)}, \quad \alpha = \mathrm{softmax}_i(\mathrm{lse}_t^{(i)}), \quad
        y_t = W_o o_t + b_o

    Branch i attends within segments of w tokens, to those at places p of the segment with p mod r = s, up to the
    token's own, and only from such: o and the logarithm lse of the sum of weights of its softmax. A (head, token) that
    a branch does not keep has no share of it; the first branch keeps all. So o is one softmax over the union of what
    the branches see, counted as often as it is seen, and its gradient goes through α too; the public code
    (microsoft/torchscale) has none there. The offset s of head h is ⌊h / ⌈H/r⌉⌋ in that code, and h mod r in the paper.
    Segments begin at a document's begin; the state holds the open one of the longest. Maps have biases; starts are
    those of ``transformer``. Blocks of ``weight``: q, k, v. Operations are the mean over a segment.

    Parameters 3N(I + 1) + N(N + 1); 2N of the norm.
    """

    Config = LongNetConfig
    EXAMPLES = (
        LongNetConfig(heads=2, segments=(16, 32), dilations=(1, 2)),
        LongNetConfig(heads=4, segments=(16, 32, 64), dilations=(1, 2, 4), offsets="paper", sub_norm=True),
        LongNetConfig(heads=2, segments=(16,), dilations=(1,), detach=True),
    )
    no_graph = "which tokens a branch keeps, and how many, depends on where the document stands"
    EQUATION = "y = softmax over segments of ever fewer tokens"
    even_steps = False

    def __init__(self, in_width: int, width: int, config: LongNetConfig):
        super().__init__(in_width, width, config)
        self.weight, self.bias = nn.Parameter(torch.empty(3 * width, in_width)), nn.Parameter(torch.empty(3 * width))
        self.out, self.out_bias = nn.Parameter(torch.empty(width, width)), nn.Parameter(torch.empty(width))
        self.gain = nn.Parameter(torch.empty(2, width)) if config.sub_norm else None
        if config.sub_norm:
            self.parameter_rules = {"gain": ParameterRule(decay=False, drawn=False)}
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        fill(xavier(1.0), [self.weight])
        fill(by_fan_in, [self.out])
        fill(nn.init.zeros_, [self.bias, self.out_bias])
        if self.gain is not None:
            fill(nn.init.ones_, [self.gain[0]])
            fill(nn.init.zeros_, [self.gain[1]])

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """The heads, and two channels of each where they rotate."""
        return config.heads * (2 if config.positions == "rotary" else 1)

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> RingState:
        """Nothing was seen."""
        heads, _, size = self.head_sizes(self.config, self.width)
        keys = torch.zeros(batch, self.config.segments[-1] - 1, heads, size, device=device, dtype=dtype)
        return RingState(keys, torch.zeros_like(keys), torch.zeros(batch, dtype=torch.int64, device=device))

    def backends(self) -> list[str]:
        """Those that give the logarithm of the sum of weights."""
        return [name for name in super().backends() if name != "torch"]

    def mix(self, x: Tensor, state: RingState, given: Given) -> tuple[Tensor, RingState]:
        """One window of the class's equations."""
        config, time = self.config, x.shape[1]
        q, k, v = (cut_heads(part, config.heads) for part in self.linear("weight", x, "bias").chunk(3, -1))
        turned = turn_segment([state.keys, state.values], (k, v), state.fill, given.reset)
        keys, values = turned.joined
        if config.positions == "rotary":
            cos, sin = self._angles(keys.shape[1], q.shape[-1], 10000.0, (q.device, q.dtype))
            q, keys = rotate(q, cos[-time:], sin[-time:]), rotate(keys, cos, sin)
        # places in the longest segment; what lies before the open one is in none
        old = torch.arange(-state.keys.shape[1], 0, device=x.device) + state.fill.unsqueeze(1)
        inside = places_of(state.fill, given.reset, time) % config.segments[-1]
        places = torch.cat([old, inside], 1)
        found = [
            self._branch(q, keys, values, places, segment, dilation)
            for segment, dilation in zip(config.segments, config.dilations, strict=True)
        ]
        outputs, sums = (torch.stack(part) for part in zip(*found, strict=True))
        share = torch.softmax(sums.detach() if config.detach else sums, 0)
        o = (share.unsqueeze(-1) * outputs).sum(0).flatten(2)
        if self.gain is not None:
            o = layer_norm(o, (self.width,), self.gain[0], self.gain[1])
        new_keys, new_values = turned.kept
        return self.linear("out", o, "out_bias"), RingState(new_keys, new_values, turned.fill)

    def _branch(
        self, q: Tensor, keys: Tensor, values: Tensor, places: Tensor, segment: int, dilation: int
    ) -> tuple[Tensor, Tensor]:
        """The attention of one branch, (batch, time, heads, size), and the logarithms of its sums of weights, (batch,
        time, heads). places: (batch, keys), those in the longest segment; negative for what is in none."""
        heads, time = q.shape[2], q.shape[1]
        inside = torch.where(places < 0, -1, places % segment)
        outputs, sums = torch.zeros_like(q), q.new_full(q.shape[:3], EMPTY)
        for offset in range(dilation):
            own = [h for h in range(heads) if self._offset(h, dilation) == offset]
            kept = (inside >= 0) & (inside % dilation == offset)
            count, asked = (int(part.sum(1).max()) for part in (kept, kept[:, -time:]))
            if not own or not asked:
                continue
            # what is kept, in order, the last of every row side by side
            order = kept.to(torch.int8).argsort(dim=1, stable=True)[:, -count:]
            tokens = order[:, -asked:] - (keys.shape[1] - time)
            there = kept.gather(1, order)[:, -asked:] & (tokens >= 0)
            tokens = tokens.clamp_min(0)
            # of its own segment a token sees as many as there are before it
            before = torch.div(inside.gather(1, order[:, -asked:]), dilation, rounding_mode="floor")
            first = (torch.arange(count - asked, count, device=q.device) - before).clamp_min(0)
            some_keys, some_values = (_picked(part[:, :, own], order) for part in (keys, values))
            part, lse = bias_attention(
                _picked(q[:, :, own], tokens), some_keys, some_values, first, lse=True, backend=self.wish,
                subject=self.name,
            )  # fmt: skip
            assert lse is not None
            row, at = there.nonzero(as_tuple=True)
            where = (row.unsqueeze(1), tokens[row, at].unsqueeze(1), torch.tensor(own, device=q.device))
            outputs, sums = outputs.index_put(where, part[row, at]), sums.index_put(where, lse[row, at])
        return outputs, sums

    def _offset(self, head: int, dilation: int) -> int:
        """Of the tokens that a head keeps."""
        if self.config.offsets == "paper":
            return head % dilation
        return head // -(-self.config.heads // dilation)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """3N(I + 1) + N(N + 1), 2N of the norm."""
        return 3 * width * (in_width + 1) + width * (width + 1) + (2 * width if config.sub_norm else 0)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """6NI + 2N², and 4N times the mean number of keys that a head sees."""
        pairs = 0.0
        for segment, dilation in zip(config.segments, config.dilations, strict=True):
            kept = segment / dilation
            pairs += kept * (kept + 1) / 2 / segment
        return 6 * width * in_width + 2 * width**2 + round(4 * width * pairs)


def _picked(x: Tensor, steps: Tensor) -> Tensor:
    """The steps (batch, n) of x (batch, time, heads, size)."""
    return x.gather(1, steps.view(*steps.shape, 1, 1).expand(-1, -1, *x.shape[2:]))
