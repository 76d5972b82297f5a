"""A Transformer layer with state vectors that go on from window to window of a text."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import rms_norm

from unrolled.cells.attention.base import AttentionCell, Positions
from unrolled.cells.base import CellConfig, ParameterRule
from unrolled.cells.feedforward.mlp import hidden_width
from unrolled.cells.matrix.base import by_fan_in, fill, normal, unit
from unrolled.cells.mixer import Given
from unrolled.cells.parts.heads import cut_heads
from unrolled.cells.parts.pieces import pieces
from unrolled.cells.parts.places import angles, rotate
from unrolled.cells.parts.ring import Turned, places_of, turn

__all__ = ["BlockRecurrent", "BlockRecurrentConfig"]

_EPSILON = 1e-6


class BlockRecurrentConfig(CellConfig):
    """Options of a block-recurrent layer."""

    name: Literal["block_recurrent"] = "block_recurrent"
    heads: int = Field(default=4, ge=1, le=4096, description="heads of all attention")
    window: int = Field(
        default=64, ge=2, le=1 << 20, description="tokens W of a window, behind which the states change"
    )
    states: int = Field(default=32, ge=1, le=1 << 16, description="state vectors S")
    gate: Literal["fixed", "lstm"] = Field(
        default="fixed", description="fixed: one trained share for each channel; lstm: shares made of what is read"
    )
    layout: Literal["skip", "single", "dual"] = Field(
        default="skip",
        description="skip: one gate behind the projection of what states read; single: one behind an MLP in its place; "
        "dual: one behind the projection and one behind an MLP",
    )
    strict: bool = Field(
        default=False, description="tokens see the W tokens before them and not themselves (published)"
    )
    factor: float = Field(
        default=4.0, gt=0, le=1024, description="hidden width of the MLPs, as a multiple of the width"
    )
    positions: Positions = Field(default="rotary", description="of tokens to tokens: none, rotary or alibi")


class BlockState(NamedTuple):
    """keys, values: (batch, 2W - 1, heads, size), newest last. fill: int64 (batch,), how many are filled. place: int64
    (batch,), tokens of the open window. states: (batch, S, width)."""

    keys: Tensor
    values: Tensor
    fill: Tensor
    place: Tensor
    states: Tensor


class BlockRecurrent(AttentionCell):
    r"""A whole layer whose tokens attend to the last W tokens and to S state vectors, which attend to themselves and to
    the tokens at the end of each window (Hutchins, Schlag, Wu, Dyer and Neyshabur 2022, arXiv:2203.07852: the
    Block-Recurrent Transformer).

    .. math::
        x &\leftarrow x + W_o[\mathrm{att}(Q x, K x, V x),\; \mathrm{att}(Q_2 x, K' s, V' s)], \quad
        x \leftarrow x + W_2\,\mathrm{relu}(W_1 x) \\
        h &= [\mathrm{att}(Q' s, K' s, V' s),\; \mathrm{att}(Q_2' s, K x, V x)] \\
        S &\leftarrow g \odot S + (1 - g) \odot W_o' h \;\text{(fixed, } g = \sigma(b)) \quad\text{or}\quad
        \sigma(W_f h + b_f + 1) \odot S + \sigma(W_i h + b_i - 1) \odot W_o' h \;\text{(lstm)}

    Norms by root mean square without biases stand before x and s; s is the normed S plus trained vectors that tell the
    states apart. Queries and keys have length 1, and each of the four attentions has a trained scale for each head, at
    first 1, of which the size counts. A window counts from the document's begin; all its tokens read the states from
    before it, and its end changes them, by the keys of the last two windows as they are before any rotation. Layout
    ``single`` has tanh(MLP(h)) in the place of the projection, ``dual`` a gate, then a norm, an MLP and a second gate;
    a gate of kind lstm reads what the last matrix before it reads.

    The published code has a zeroed window before each text, whose keys take part in the softmax; here nothing before
    the document is seen. ``strict`` is its mask. It adds relative positions of T5. The layer stands among others, at
    the third place from the top in the paper, in a plain stack: ``model.cell.pattern = "transformer*2,
    block_recurrent, transformer"``. S begins N(0, 0.1²) and all b too, the vectors that tell states apart N(0, 1), W_f
    and W_i N(0, 0.1 / inputs), other matrices as those of ``torch.nn.Linear``.

    Parameters 6N² + 2NF of tokens, 6N² + 2SN + N of states with a fixed gate and layout skip, 4H scales, 3N of norms;
    NI where I is not N.
    """

    Config = BlockRecurrentConfig
    State = BlockState
    EXAMPLES = (
        BlockRecurrentConfig(heads=2, window=4, states=3, factor=1.0),
        BlockRecurrentConfig(heads=1, window=4, states=2, gate="lstm", strict=True, factor=1.5),
        BlockRecurrentConfig(heads=2, window=3, states=2, gate="lstm", layout="dual", factor=1.0),
        BlockRecurrentConfig(heads=2, window=5, states=2, layout="single", factor=1.0, positions="alibi"),
    )
    EQUATION = "x = x + W[att(x), att(x, S)] + MLP; S = g S + (1-g) W'[att(S), att(S, x)] at each window's end"
    even_steps = False
    no_graph = "its states change where a window ends"

    def __init__(self, in_width: int, width: int, config: BlockRecurrentConfig):
        super().__init__(in_width, width, config)
        hidden, self.entry = hidden_width(config.factor, width), None

        def matrix(rows: int, columns: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(rows, columns))

        if in_width != width:
            self.entry = matrix(width, in_width)
        self.weight, self.out = matrix(4 * width, width), matrix(width, 2 * width)
        self.up, self.down = matrix(hidden, width), matrix(width, hidden)
        self.state_weight, self.state_out = matrix(4 * width, width), None
        self.gains = matrix(3, width)
        self.scales = matrix(4, config.heads)
        self.start, self.ids = matrix(config.states, width), matrix(config.states, width)
        if config.layout != "single":
            self.state_out = matrix(width, 2 * width)
        self.state_up = self.state_down = self.state_gain = None
        if config.layout != "skip":
            reads = width if config.layout == "dual" else 2 * width
            self.state_up, self.state_down = matrix(hidden, reads), matrix(width, hidden)
        if config.layout == "dual":
            self.state_gain = nn.Parameter(torch.empty(width))
        sizes = {"skip": [2 * width], "single": [hidden], "dual": [2 * width, hidden]}[config.layout]
        if config.gate == "fixed":
            self.gates = nn.ParameterList(nn.Parameter(torch.empty(width)) for _ in sizes)
            self.gate_bias = None
        else:
            self.gates = nn.ParameterList(matrix(2 * width, size) for size in sizes)
            self.gate_bias = nn.Parameter(torch.empty(len(sizes), 2 * width))
        kept = ParameterRule(decay=False, drawn=False)
        self.parameter_rules = dict.fromkeys(("gains", "scales", "start", "ids"), kept)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        fill(by_fan_in, [self.entry, self.weight, self.out, self.up, self.down, self.state_weight, self.state_out])
        fill(by_fan_in, [self.state_up, self.state_down])
        fill(nn.init.ones_, [self.gains, self.scales, self.state_gain])
        fill(normal(0.1), [self.start])
        fill(normal(1.0), [self.ids])
        for gate in self.gates:
            fill(normal(0.1 if self.config.gate == "fixed" else (0.1 / gate.shape[-1]) ** 0.5), [gate])
        fill(normal(0.1), [self.gate_bias])

    @classmethod
    def head_sizes(cls, config: Any, width: int) -> tuple[int, int, int]:
        """See :meth:`AttentionCell.head_sizes`."""
        return config.heads, config.heads, width // config.heads

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """The heads, and two channels of each where they rotate."""
        return config.heads * (2 if config.positions == "rotary" else 1)

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> BlockState:
        """No token, and the trained states."""
        heads, _, size = self.head_sizes(self.config, self.width)
        keys = torch.zeros(batch, 2 * self.config.window - 1, heads, size, device=device, dtype=dtype)
        none = torch.zeros(batch, dtype=torch.int64, device=device)
        start = self.start.to(device=device, dtype=dtype or self.start.dtype).expand(batch, -1, -1)
        return BlockState(keys, torch.zeros_like(keys), none, none.clone(), start)

    def _heads(self, weight: str, x: Tensor) -> list[Tensor]:
        return [cut_heads(part, self.config.heads) for part in self.linear(weight, x).chunk(4, -1)]

    def mix(self, x: Tensor, state: BlockState, given: Given) -> tuple[Tensor, BlockState]:
        """One window of the class's equations."""
        x = x if self.entry is None else self.linear("entry", x)
        q, k, v, q2 = self._heads("weight", rms_norm(x, (self.width,), self.gains[0], _EPSILON))
        q, k, q2 = (unit(part) for part in (q, k, q2))
        turned = turn([state.keys, state.values], [k, v], state.fill, given.reset)
        scales = self.scales.abs().unsqueeze(-1)
        own = self._tokens(q * scales[0], turned)
        read, states = self._states(q2 * scales[1], turned.joined, state, given)
        x = x + self.linear("out", torch.cat([own.flatten(2), read.flatten(2)], -1))
        hidden = torch.relu(self.linear("up", rms_norm(x, (self.width,), self.gains[1], _EPSILON)))
        place = (places_of(state.place, given.reset, x.shape[1])[:, -1] + 1) % self.config.window
        keys, values = turned.kept
        return x + self.linear("down", hidden), BlockState(keys, values, turned.fill, place, states)

    def _tokens(self, q: Tensor, turned: Turned) -> Tensor:
        """Attention to the last W tokens; scores are products of unit vectors times their scale."""
        config, time = self.config, q.shape[1]
        length = 2 * config.window - 1
        steps = length + torch.arange(time, device=q.device)
        joined, first = turned.joined, torch.maximum(turned.first, steps - config.window + (0 if config.strict else 1))
        if config.strict:
            # a query stands at the place of the token before it, and sees nothing where its document begins
            joined = [part[:, :-1] for part in joined]
            if config.positions == "rotary":
                ahead = q.new_ones(1, dtype=torch.float64)  # by how far its own place lies beyond that one
                q = rotate(q, *(part.to(q.dtype) for part in angles(ahead, q.shape[-1], 10000.0)))
        return self.attend(q, Turned(joined, first, [], turned.fill), config.positions, scale=1.0)

    def _states(self, q2: Tensor, joined: list[Tensor], state: BlockState, given: Given) -> tuple[Tensor, Tensor]:
        """What tokens read of the states, and the states after the window."""
        window, states, found = self.config.window, state.states, []
        document = places_of(state.fill, given.reset, q2.shape[1])
        inside = places_of(state.place, given.reset, q2.shape[1]) % window
        start, scales = self.start.to(states.dtype), self.scales.abs().unsqueeze(-1)
        for piece in pieces(inside, window, given.reset):
            if piece.restarts is not None:
                states = torch.where(piece.restarts.view(-1, 1, 1), start, states)
            normed = rms_norm(states, (self.width,), self.gains[2], _EPSILON) + self.ids
            a, k, v, b = self._heads("state_weight", normed)
            a, k, b = (unit(part) for part in (a, k, b))
            found.append(_attend(q2[:, piece.low : piece.high], k, v))
            if piece.ends is not None:
                keys, values = (part[:, piece.high - 1 : piece.high - 1 + 2 * window] for part in joined)
                there = (
                    torch.arange(2 * window, device=keys.device)
                    >= 2 * window - 1 - document[:, piece.high - 1 : piece.high]
                )
                own = _attend(a * scales[2], k, v)
                seen = _attend(b * scales[3], keys, values, there)
                h = torch.cat([own.flatten(2), seen.flatten(2)], -1)
                states = torch.where(piece.ends.view(-1, 1, 1), self._changed(states, h), states)
        return torch.cat(found, 1), states

    def _changed(self, states: Tensor, h: Tensor) -> Tensor:
        """The states after a window, of what they read, (batch, S, 2N)."""
        if self.config.layout == "single":
            hidden = torch.relu(self.linear("state_up", h))
            return self._gate(0, states, torch.tanh(self.linear("state_down", hidden)), hidden)
        states = self._gate(0, states, self.linear("state_out", h), h)
        if self.config.layout == "skip":
            return states
        normed = rms_norm(states, (self.width,), self.state_gain, _EPSILON)
        hidden = torch.relu(self.linear("state_up", normed))
        return self._gate(1, states, self.linear("state_down", hidden), hidden)

    def _gate(self, number: int, states: Tensor, new: Tensor, read: Tensor) -> Tensor:
        if self.gate_bias is None:
            share = torch.sigmoid(self.gates[number])
            return share * states + (1 - share) * new
        f, i = (self.linear(f"gates.{number}", read) + self.gate_bias[number]).chunk(2, -1)
        return torch.sigmoid(f + 1) * states + torch.sigmoid(i - 1) * new

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """12N² + 2NF + 2SN + 4H + 3N less what a layout lacks, its MLP and norm, gates, entry."""
        hidden = hidden_width(config.factor, width)
        sizes = {"skip": [2 * width], "single": [hidden], "dual": [2 * width, hidden]}[config.layout]
        own = 4 * width**2 + (0 if config.layout == "single" else 2 * width**2) + 2 * config.states * width
        mlp = {"skip": 0, "single": hidden * 3 * width, "dual": hidden * 2 * width + width}[config.layout]
        gates = len(sizes) * width if config.gate == "fixed" else sum(2 * width * (size + 1) for size in sizes)
        entry = width * in_width if in_width != width else 0
        return 6 * width**2 + 2 * hidden * width + own + mlp + gates + 4 * config.heads + 3 * width + entry

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """Twice the matrices of tokens, 4(W + S)N of attention, and the W-th part of a change of the states."""
        hidden, count = hidden_width(config.factor, width), config.states
        sizes = {"skip": [2 * width], "single": [hidden], "dual": [2 * width, hidden]}[config.layout]
        entry = width * in_width if in_width != width else 0
        tokens = 2 * (6 * width**2 + 2 * hidden * width + entry) + 4 * (config.window + count) * width
        maps = 4 * width**2 + (0 if config.layout == "single" else 2 * width**2)
        maps += {"skip": 0, "single": 3 * hidden * width, "dual": 2 * hidden * width}[config.layout]
        maps += 0 if config.gate == "fixed" else sum(2 * width * size for size in sizes)
        change = count * (2 * maps + 4 * (count + 2 * config.window) * width)
        return tokens + change // config.window


def _attend(q: Tensor, k: Tensor, v: Tensor, there: Tensor | None = None) -> Tensor:
    """Softmax attention (batch, queries, heads, size) without order. there: boolean (batch, keys)."""
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k)
    if there is not None:
        scores = scores.masked_fill(~there[:, None, None], -torch.inf)
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)
