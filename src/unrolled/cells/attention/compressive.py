"""Attention to the last tokens and to a compressed memory of those before."""

import math
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import linear

from unrolled.cells.attention.base import AttentionCell
from unrolled.cells.base import CellConfig, ParameterRule
from unrolled.cells.matrix.base import by_fan_in, fill
from unrolled.cells.mixer import Given
from unrolled.cells.parts.heads import cut_heads
from unrolled.cells.parts.pieces import pieces
from unrolled.cells.parts.places import sinusoid
from unrolled.cells.parts.ring import places_of, turn
from unrolled.core.errors import UsageError
from unrolled.kernels.bias_attention import bias_attention

__all__ = ["Compressive", "CompressiveConfig"]


class CompressiveConfig(CellConfig):
    """Options of compressive attention."""

    name: Literal["compressive"] = "compressive"
    heads: int = Field(default=4, ge=1, le=4096, description="heads")
    segment: int = Field(default=64, ge=1, le=1 << 20, description="tokens S of a segment")
    recent: int = Field(default=64, ge=1, le=1 << 20, description="tokens before the segment that are kept as they are")
    compressed: int = Field(default=64, ge=1, le=1 << 20, description="compressed vectors that are kept")
    compression: int = Field(default=4, ge=1, le=1 << 16, description="tokens c that become one compressed vector")
    compress: Literal["conv", "mean", "max"] = Field(
        default="conv", description="how: a trained map of the c vectors, their mean, or their largest numbers"
    )

    @model_validator(mode="after")
    def _whole(self) -> "CompressiveConfig":
        if self.segment % self.compression or self.recent % self.segment:
            raise UsageError(
                f"segments of {self.segment} tokens pass through {self.recent}, compressed by {self.compression}; make "
                "segment a multiple of compression, and recent one of segment."
            )
        return self


class CompressiveState(NamedTuple):
    """inputs: (batch, recent + S - 1, in_width), what the layer read, newest last. fill: int64 (batch,), how many are
    filled. place: int64 (batch,), tokens of the open segment. packed: (batch, compressed, in_width), newest last.
    count: int64 (batch,), how many of these there are."""

    inputs: Tensor
    fill: Tensor
    place: Tensor
    packed: Tensor
    count: Tensor


class Compressive(AttentionCell):
    r"""Attention to the tokens of the open segment, to ``recent`` ones before it, and to compressed ones before those
    (Rae, Potapenko, Jayakumar and Lillicrap 2019, arXiv:1911.05507: the Compressive Transformer).

    .. math::
        y_t &= W_o \sum_j \mathrm{softmax}_j((q_t + u)^\top k_j + (q_t + w)^\top W_r R_{t-j})\, v_j, \quad
        [k_j, v_j] = W_{kv} [m^c;\, m;\, x]_j \\
        m^c &\leftarrow [m^c;\, f(m_{1 \dots S})], \quad m \leftarrow [m_{S+1 \dots};\, x_{1 \dots S}]
        \quad\text{at a segment's end}

    m are the inputs of the last ``recent`` tokens before the segment and m^c one vector for each c of those before: the
    S oldest are compressed when a segment ends. R are sinusoids of the distance in places of [m^c; m; x], as in
    Transformer-XL (Dai et al. 2019), whose memory of ``recent`` + ``compressed`` tokens c = 1 with ``mean`` is. Scores
    are over the root of a head's size. The cell hands ``cost`` upwards, the attention reconstruction loss: the mean
    square of the difference of what a segment's tokens, attending by content, read of the S inputs and of their
    compression, whose gradient reaches the map alone (``train.objective.cost``; 1 in the paper). Gradients cross
    segments within a window; where the paper has none, ``stream.window`` is the segment. Keys of what is kept are made
    anew in each window, of the weights as they are, so that a single token takes as many products as the memory has
    places. Weights as those of ``torch.nn.Linear``, u and w 0, the map of ``conv`` the mean at first; no biases.

    Parameters 3NI + 2N² + 2N; cI² with ``conv``.
    """

    Config = CompressiveConfig
    State = CompressiveState
    EXAMPLES = (
        CompressiveConfig(heads=2, segment=4, recent=4, compressed=3, compression=2),
        CompressiveConfig(heads=1, segment=2, recent=4, compressed=5, compression=1, compress="mean"),
        CompressiveConfig(heads=2, segment=3, recent=6, compressed=2, compression=3, compress="max"),
    )
    EQUATION = "y = softmax(q [C(m..); m; x]') [C(m..); m; x], m = inputs before"
    hands = ("cost",)
    even_steps = False
    no_graph = "what it keeps is compressed where a segment ends"

    def __init__(self, in_width: int, width: int, config: CompressiveConfig):
        super().__init__(in_width, width, config)
        self.query, self.weight = (
            nn.Parameter(torch.empty(width, in_width)),
            nn.Parameter(torch.empty(2 * width, in_width)),
        )
        self.out, self.distance = nn.Parameter(torch.empty(width, width)), nn.Parameter(torch.empty(width, width))
        self.content_bias, self.place_bias = nn.Parameter(torch.empty(width)), nn.Parameter(torch.empty(width))
        self.map = (
            nn.Parameter(torch.empty(in_width, config.compression * in_width)) if config.compress == "conv" else None
        )
        self.parameter_rules = {"map": ParameterRule(drawn=False)} if config.compress == "conv" else {}
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        fill(by_fan_in, [self.query, self.weight, self.out, self.distance])
        fill(nn.init.zeros_, [self.content_bias, self.place_bias])
        if self.map is not None and not self.map.is_meta:
            self.map.copy_(torch.eye(self.in_width).repeat(1, self.config.compression) / self.config.compression)

    @classmethod
    def head_sizes(cls, config: Any, width: int) -> tuple[int, int, int]:
        """See :meth:`AttentionCell.head_sizes`."""
        return config.heads, config.heads, width // config.heads

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """The heads."""
        return config.heads

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> CompressiveState:
        """Nothing was seen."""
        c = self.config
        inputs = torch.zeros(batch, c.recent + c.segment - 1, self.in_width, device=device, dtype=dtype)
        none = torch.zeros(batch, dtype=torch.int64, device=device)
        packed = inputs.new_zeros(batch, c.compressed, self.in_width)
        return CompressiveState(inputs, none, none.clone(), packed, none.clone())

    def backends(self) -> list[str]:
        """All but the native one, which knows no bias by distance."""
        return [name for name in super().backends() if name != "native"]

    def mix(self, x: Tensor, state: CompressiveState, given: Given) -> tuple[Tensor, CompressiveState]:
        """One window of the class's equations."""
        c, time = self.config, x.shape[1]
        turned = turn([state.inputs], [x], state.fill, given.reset)
        joined, length = turned.joined[0], state.inputs.shape[1]
        document = places_of(state.fill, given.reset, time)
        inside = places_of(state.place, given.reset, time) % c.segment
        q = cut_heads(self.linear("query", x), c.heads)
        keys = self.linear("weight", joined)
        packed, count, found, costs = state.packed, state.count, [], []
        for piece in pieces(inside, c.segment, given.reset):
            if piece.restarts is not None:
                packed = packed.masked_fill(piece.restarts.view(-1, 1, 1), 0)
                count = count.masked_fill(piece.restarts, 0)
            low, high = piece.low, piece.high
            # of what is joined, the places from the oldest recent token of any row to the piece's end
            seen = slice(low, length + high)
            own = length + torch.arange(low, high, device=x.device)
            within = inside[:, low:high]
            first = own - within - (document[:, low:high] - within).clamp_max(c.recent)
            found.append(self._attend(q[:, low:high], keys[:, seen], first - low, packed, count))
            if piece.ends is None:
                costs.append(x.new_zeros(len(x), high - low, 1))
                continue
            # the oldest of the recent tokens and the segment: what is joined begins segment - 1 places before them
            old = joined[:, high - 1 : high - 1 + c.segment]
            full = piece.ends & (document[:, high - 1] + 1 >= c.segment + c.recent)
            new = self._compressed(old)
            costs.append(self._cost(joined[:, length + high - c.segment : length + high], old, full, high - low))
            size = min(new.shape[1], c.compressed)
            pushed = torch.cat([packed, new], 1)[:, -c.compressed :]
            packed = torch.where(full.view(-1, 1, 1), pushed, packed)
            count = torch.where(full, (count + size).clamp_max(c.compressed), count)
        cost, below = torch.cat(costs, 1), given.handed.get("cost")
        given.handed["cost"] = cost if below is None else below + cost
        place = (inside[:, -1] + 1) % c.segment
        y = self.linear("out", torch.cat(found, 1).flatten(2))
        return y, CompressiveState(turned.kept[0], turned.fill, place, packed, count)

    def _attend(self, q: Tensor, keys: Tensor, first: Tensor, packed: Tensor, count: Tensor) -> Tensor:
        """(batch, time, heads, size). keys: (batch, places, 2N), of inputs; first: the first of these that each query
        sees."""
        c, time, size = self.config, q.shape[1], packed.shape[1]
        whole = torch.cat([self.linear("weight", packed), keys], 1)
        k, v = (cut_heads(part, c.heads) for part in whole.chunk(2, -1))
        # the compressed vectors of a row stand right before the first of its recent tokens
        total, steps = whole.shape[1], torch.arange(whole.shape[1], device=q.device)
        own = total - time + torch.arange(time, device=q.device)
        gap = first + size
        places = torch.where(steps < size, gap.unsqueeze(-1) - size + steps, steps)
        unseen = (steps >= size) & (steps < gap.unsqueeze(-1)) | (steps < size - count.view(-1, 1, 1))
        distance = own.view(1, -1, 1) - places
        far = sinusoid(torch.arange(total, device=q.device, dtype=torch.float64), self.width).to(q.dtype)
        r = cut_heads(self.linear("distance", far.unsqueeze(0)), c.heads)[0]
        content, place = (part.view(c.heads, -1) for part in (self.content_bias, self.place_bias))
        by_distance = torch.einsum("bthd,khd->bhtk", q + place, r)
        bias = by_distance.gather(3, distance.clamp(0, total - 1).unsqueeze(1).expand(-1, c.heads, -1, -1))
        scale = q.shape[-1] ** -0.5
        bias = (bias * scale).masked_fill(unseen.unsqueeze(1), -torch.inf)
        y, _ = bias_attention(q + content, k, v, bias=bias, scale=scale, backend=self.wish, subject=self.name)
        return y

    def _compressed(self, old: Tensor) -> Tensor:
        """(batch, S / c, in_width) of (batch, S, in_width)."""
        runs = old.unflatten(1, (-1, self.config.compression))
        if self.map is not None:
            return self.linear("map", runs.flatten(2))
        return runs.mean(2) if self.config.compress == "mean" else runs.amax(2)

    def _cost(self, now: Tensor, old: Tensor, full: Tensor, time: int) -> Tensor:
        """(batch, time, 1): S / time times the mean square by which attention to the compressed vectors differs from
        that to the inputs, for rows that are ``full``, so that its mean over tokens is that over segments."""
        if self.map is None or not torch.is_grad_enabled():
            return now.new_zeros(len(now), time, 1)
        query, weight, now, old = (part.detach() for part in (self.query, self.weight, now, old))
        new = linear(old.unflatten(1, (-1, self.config.compression)).flatten(2), self.map)

        def read(memory: Tensor) -> Tensor:
            q = cut_heads(linear(now, query), self.config.heads)
            k, v = (cut_heads(part, self.config.heads) for part in linear(memory, weight).chunk(2, -1))
            scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
            return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)

        square = (read(old) - read(new)).square().mean((1, 2, 3)) * full
        return (square * self.config.segment / time).view(-1, 1, 1).expand(-1, time, 1)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """3NI + 2N² + 2N, and cI² of the map."""
        own = config.compression * in_width**2 if config.compress == "conv" else 0
        return 3 * width * in_width + 2 * width**2 + 2 * width + own

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """Twice the matrices, the map's once every c tokens, and 6N for each place of a full memory and segment."""
        own = 2 * in_width**2 if config.compress == "conv" else 0
        reach = config.recent + config.compressed + config.segment
        return 6 * width * in_width + 2 * width**2 + own + 6 * reach * width
