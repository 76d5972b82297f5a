"""SeqBoat: attention that is switched on for some tokens alone."""

import math
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from unrolled.cells.attention.base import AverageConfig
from unrolled.cells.base import ParameterRule
from unrolled.cells.feedforward.mlp import hidden_width
from unrolled.cells.init import truncated_normal
from unrolled.cells.matrix.base import by_fan_in, fill
from unrolled.cells.mixer import Given
from unrolled.cells.parts.places import angles, rotate
from unrolled.cells.ssm.cell import SystemCell
from unrolled.cells.ssm.diagonal import Diagonal
from unrolled.cells.ssm.mega_ema import damped_average, fill_average
from unrolled.kernels.bias_attention import bias_attention

__all__ = ["SeqBoat", "SeqBoatConfig"]


class SeqBoatConfig(AverageConfig):
    """Options of SeqBoat."""

    name: Literal["seqboat"] = "seqboat"
    window: int = Field(
        default=256, ge=1, le=1 << 20, description="active tokens before the present one that it attends to"
    )
    attention: Literal["softmax", "relu2"] = Field(
        default="softmax", description="weights: softmax, or the squared relu of each score by itself"
    )
    bias: Literal["rotary", "simple"] = Field(
        default="rotary",
        description="rotations by the place in the document, or a trained number for each distance added to the score",
    )
    distances: int = Field(
        default=1024, ge=1, le=1 << 20, description="numbers of the simple bias; the last for all beyond"
    )
    temperature: float = Field(
        default=1.0, gt=0, le=1e4, description="first temperature of the router, as a multiple of the root of the width"
    )


class SeqBoatState(NamedTuple):
    """s: (batch, channels, modes), the averages. keys: (batch, window, 1, Z), values (batch, window, 1, V), those of
    the last active tokens, newest last. ages: int64 (batch, window), how many tokens ago each came. fill: int64
    (batch,), how many are there."""

    s: Tensor
    keys: Tensor
    values: Tensor
    ages: Tensor
    fill: Tensor


class _Active(NamedTuple):
    """The active tokens of a window, in order. order: (batch, n), their steps. valid: (batch, n), false where a row has
    fewer. document: (batch, n), the number of resets up to each. place: where each token of the window stands among
    them, (batch, time)."""

    order: Tensor
    valid: Tensor
    document: Tensor
    place: Tensor


class SeqBoat(SystemCell):
    r"""A layer of SeqBoat, sparse modular activation (Ren et al. 2023, arXiv:2306.11197): a moving average for every
    token, and attention for those alone that a router turns on, to the last W such tokens.

    .. math::
        \hat x &= \mathrm{LN}(x), \quad m = \mathrm{SiLU}(\mathrm{EMA}(\hat x) + \omega \odot \hat x), \quad
        [u, b] = W_b m \\
        p &= \mathrm{softmax}(u / \tau), \quad a = [p_1 > p_0] \\
        \text{where } a: \quad [z, r, v] &= \mathrm{SiLU}(W m), \quad q, k = \kappa_{q,k} \odot z + \mu_{q,k}, \quad
        o = \sum_j w(q^\top k_j\, c + \beta_{t-t_j})\, v_j \\
        y &= \mathrm{SiLU}(b + p_1\, a\, W_o(r \odot o) + x)

    w is the softmax with c = Z^-1/2, or the squared relu with c = 1 / W. Keys are the last W active tokens of the
    document and the present one; distances count all tokens. The choice a is a step: the router learns through p₁ of
    active tokens alone, so a layer that has closed for all tokens stays closed, and one whose W_b is zero never opens,
    since a tie is closed. The traced ``active`` shows it. Only active tokens are multiplied; rows of a batch that have
    fewer wait for the longest. It holds its residual and norm itself, so it goes into a plain stack, with
    ``stack.output_norm = "layer"``. An input of another width than the cell's goes through a matrix first. Matrices, κ
    and the bias start N(0, 0.02²) cut off at two deviations, their biases 0; the average is that of ``mega_ema``. Of
    the published table of distances the half that a causal model reads is here. Blocks of ``weight``: z, r, v; of
    ``weight_b``: u, b.

    Parameters, with Z, V values and M modes: 2N + N(4M + 1) + 4Z + 1 + (N + 1)(Z + 2V) + (N + 1)(N + 2) + (V + 1)N, the
    distances of a simple bias, NI where I is not N.
    """

    Config = SeqBoatConfig
    EXAMPLES = (
        SeqBoatConfig(modes=2, shared=4, value_factor=1.5, window=2),
        SeqBoatConfig(modes=1, shared=2, window=3, attention="relu2", bias="simple", distances=4),
    )
    no_graph = "it computes attention for the tokens that it chooses alone"
    EQUATION = "y = silu(b + p a W(r * att) + x), attention where p1 > p0"
    State = SeqBoatState  # type: ignore[assignment]
    even_steps = False

    def __init__(self, in_width: int, width: int, config: SeqBoatConfig):
        super().__init__(in_width, width, config)
        values, z = hidden_width(config.value_factor, width), config.shared

        def pair(rows: int, columns: int) -> tuple[nn.Parameter, nn.Parameter]:
            return nn.Parameter(torch.empty(rows, columns)), nn.Parameter(torch.empty(rows))

        self.entry = nn.Parameter(torch.empty(width, in_width)) if in_width != width else None
        self.delta, self.alpha, self.beta, self.gamma = (
            nn.Parameter(torch.empty(width, config.modes)) for _ in range(4)
        )
        self.omega = nn.Parameter(torch.empty(width))
        self.gain, self.gain_bias = nn.Parameter(torch.empty(width)), nn.Parameter(torch.empty(width))
        self.weight_b, self.bias_b = pair(2 + width, width)
        self.weight, self.bias = pair(z + 2 * values, width)
        self.out, self.out_bias = pair(width, values)
        self.scale, self.shift = nn.Parameter(torch.empty(2, z)), nn.Parameter(torch.empty(2, z))
        self.temperature = nn.Parameter(torch.empty(1))
        self.distance = nn.Parameter(torch.empty(config.distances)) if config.bias == "simple" else None
        kept = ParameterRule(drawn=False)
        self.parameter_rules = dict.fromkeys(("delta", "alpha", "beta", "gamma", "scale", "shift"), kept)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        fill_average(self)
        fill(by_fan_in, [self.entry])
        fill(
            lambda part: truncated_normal(part, 0.02), [self.weight, self.weight_b, self.out, self.scale, self.distance]
        )
        fill(nn.init.zeros_, [self.bias, self.bias_b, self.out_bias, self.shift, self.gain_bias])
        fill(nn.init.ones_, [self.gain])
        nn.init.constant_(self.temperature, math.log(self.config.temperature * self.width**0.5))

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> SeqBoatState:
        """Nothing was seen."""
        config = self.config
        s = torch.zeros(batch, self.width, config.modes, device=device, dtype=dtype)
        sizes = config.shared, hidden_width(config.value_factor, self.width)
        keys, values = (s.new_zeros(batch, config.window, 1, size) for size in sizes)
        ages = torch.zeros(batch, config.window, dtype=torch.int64, device=device)
        return SeqBoatState(s, keys, values, ages, ages[:, 0].clone())

    def system(self) -> Diagonal:
        """That of ``mega_ema``."""
        return damped_average(self.delta, self.alpha, self.beta, self.gamma)

    def mix(self, x: Tensor, state: SeqBoatState, given: Given) -> tuple[Tensor, SeqBoatState]:
        """One window of the class's equations."""
        x = x if self.entry is None else self.linear("entry", x)
        normed = layer_norm(x, (self.width,), self.gain, self.gain_bias)
        average, new = self.drive(normed, state, given)
        m = silu(average + self.omega * normed)
        u, b = self.linear("weight_b", m, "bias_b").split((2, self.width), -1)
        p = torch.softmax(u / self.temperature.exp(), -1)
        on = p[..., 1] > p[..., 0]
        if given.show is not None:
            given.show("active", on.unsqueeze(-1).to(x.dtype))
        document = torch.zeros_like(on, dtype=torch.int64) if given.reset is None else given.reset.cumsum(1)
        active = _active(on, document)
        g, rest = self._attend(m, active, document[:, -1:], state)
        if g is not None:
            spread = g.gather(1, active.place.unsqueeze(-1).expand(-1, -1, g.shape[-1]))
            b = b + p[..., 1:] * on.unsqueeze(-1) * spread
        return silu(b + x), SeqBoatState(new.s, *rest)

    def _attend(
        self, m: Tensor, active: _Active, last: Tensor, state: SeqBoatState
    ) -> tuple[Tensor | None, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """What attention gives the active tokens, (batch, n, N), None where there are none; and the last ones of the
        document ``last``, (batch, 1), as the state has them after the window."""
        config, (batch, time, _) = self.config, m.shape
        window, count = config.window, active.order.shape[1]
        slots = torch.arange(window, device=m.device)
        # documents of what is kept are 0, of what is not there -1
        document = torch.where(slots >= window - state.fill.unsqueeze(1), 0, -1)
        place, joined, g = -state.ages, [state.keys, state.values], None
        if count:
            rows = m.gather(1, active.order.unsqueeze(-1).expand(-1, -1, m.shape[-1]))
            values = state.values.shape[-1]
            z, r, v = silu(self.linear("weight", rows, "bias")).split((config.shared, values, values), -1)
            q, k = (z.unsqueeze(-2) * self.scale + self.shift).unbind(-2)
            joined = [torch.cat([old, new.unsqueeze(2)], 1) for old, new in zip(joined, (k, v), strict=True)]
            document = torch.cat([document, active.document.masked_fill(~active.valid, -2)], 1)
            place = torch.cat([place, active.order], 1)
            first = _first(active, state.fill, window)
            o = self._weighted(q, joined, first, place)
            g = self.linear("out", o * r, "out_bias")
        used = active.valid.sum(1, keepdim=True) + slots
        kept = document.gather(1, used) == last
        parts = [
            part.gather(1, used.view(batch, window, 1, 1).expand(-1, -1, 1, part.shape[-1])) * kept[..., None, None]
            for part in joined
        ]
        ages = (time - place.gather(1, used)) * kept
        return g, (parts[0], parts[1], ages, kept.sum(1))

    def _weighted(self, q: Tensor, joined: list[Tensor], first: Tensor, place: Tensor) -> Tensor:
        """(batch, n, V): the sum of the values that each active token sees. place: of the joined ones, in tokens from
        the window's begin."""
        config, count = self.config, q.shape[1]
        keys, values = joined
        q, bias = q.unsqueeze(2), None
        scale = config.shared**-0.5 if config.attention == "softmax" else 1 / config.window
        if self.distance is None:
            cos, sin = (part.to(q.dtype).unsqueeze(2) for part in angles(place.double(), config.shared, 10000.0))
            q, keys = rotate(q, cos[:, -count:], sin[:, -count:]), rotate(keys, cos, sin)
        else:
            apart = (place[:, -count:].unsqueeze(2) - place.unsqueeze(1)).clamp(0, config.distances - 1)
            bias = self.distance[apart].unsqueeze(1)
        y, _ = bias_attention(
            q, keys, values, first, bias=bias, scale=scale, weights=config.attention,
            backend=self.wish_for("bias_attention"), subject=self.name,
        )  # fmt: skip
        return y.squeeze(2)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """2N + N(4M + 1) + 4Z + 1 + (N + 1)(Z + 2V) + (N + 1)(N + 2) + (V + 1)N, distances, NI of an entry."""
        values, z = hidden_width(config.value_factor, width), config.shared
        maps = (width + 1) * (z + 2 * values) + (width + 1) * (width + 2) + (values + 1) * width
        rest = (config.distances if config.bias == "simple" else 0) + (width * in_width if in_width != width else 0)
        return 2 * width + width * (4 * config.modes + 1) + 4 * z + 1 + maps + rest

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """Of an active token: twice the matrices, and 2(W + 1)(Z + V) of a full window."""
        values, z = hidden_width(config.value_factor, width), config.shared
        maps = width * (z + 2 * values) + width * (width + 2) + values * width
        entry = width * in_width if in_width != width else 0
        return 2 * (maps + entry) + 2 * (config.window + 1) * (z + values)


def _active(on: Tensor, document: Tensor) -> _Active:
    """See :class:`_Active`. on: boolean (batch, time). document: (batch, time)."""
    counts = on.sum(1)
    count = int(counts.max())
    order = (~on).to(torch.int8).argsort(dim=1, stable=True)[:, :count]
    valid = torch.arange(count, device=on.device) < counts.unsqueeze(1)
    place = (on.cumsum(1) - 1).clamp_min(0)
    return _Active(order, valid, document.gather(1, order), place)


def _first(active: _Active, fill: Tensor, window: int) -> Tensor:
    """(batch, n): the first of the joined keys that each active token sees."""
    steps = torch.arange(active.order.shape[1], device=fill.device)
    before = torch.cat([torch.zeros_like(active.document[:, :1]), active.document[:, :-1]], 1)
    begun = torch.where(active.document != before, steps, -window).cummax(1).values
    return torch.maximum(torch.maximum(steps, window - fill.unsqueeze(1)), window + begun)
