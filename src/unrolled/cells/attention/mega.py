"""Mega: attention in chunks, over a moving average."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from unrolled.cells.attention.base import AverageConfig
from unrolled.cells.base import ParameterRule
from unrolled.cells.feedforward.mlp import hidden_width
from unrolled.cells.matrix.base import by_fan_in, fill, normal
from unrolled.cells.mixer import Given
from unrolled.cells.parts.places import angles
from unrolled.cells.parts.ring import turn_segment
from unrolled.cells.ssm.cell import SystemCell
from unrolled.cells.ssm.diagonal import Diagonal
from unrolled.cells.ssm.mega_ema import damped_average, fill_average
from unrolled.kernels.bias_attention import bias_attention

__all__ = ["Mega", "MegaConfig"]


class MegaConfig(AverageConfig):
    """Options of Mega."""

    name: Literal["mega"] = "mega"
    chunk: int = Field(default=256, ge=2, le=1 << 20, description="tokens of a chunk, within which is attended")
    attention: Literal["softmax", "laplace", "relu2"] = Field(
        default="softmax", description="weights: softmax, or laplace or the squared relu of each score by itself"
    )
    bias: Literal["rotary", "simple"] = Field(
        default="rotary", description="trained bias of the distance: through rotary angles, or one number each"
    )
    factor: float = Field(
        default=2.0, ge=0, le=1024, description="hidden width of the MLP, as a multiple of the width (0: none)"
    )


class MegaState(NamedTuple):
    """s: (batch, channels, modes), the averages. keys: (batch, chunk - 1, 1, Z), values (batch, chunk - 1, 1, V), those
    of the open chunk, newest last. fill: int64 (batch,), tokens of the open chunk."""

    s: Tensor
    keys: Tensor
    values: Tensor
    fill: Tensor


class Mega(SystemCell):
    r"""A whole layer of Mega (Ma et al. 2023, arXiv:2209.10655): single-head attention within chunks whose queries,
    keys and gates read a damped moving average, which alone passes the chunks' borders.

    .. math::
        \hat x &= \mathrm{LN}(x), \quad m = \mathrm{SiLU}(\mathrm{EMA}(\hat x) + \omega \odot \hat x), \quad
        z = \mathrm{SiLU}(W_z m) \\
        q, k &= \kappa_{q,k} \odot z + \mu_{q,k}, \quad v = \mathrm{SiLU}(W_v \hat x), \quad
        o_t = \sum_j w(q_t^\top k_j\, c + b_{t-j})\, v_j \\
        \tilde h &= \mathrm{SiLU}(W_h m + U(\mathrm{SiLU}(W_r m) \odot o)), \quad u = \sigma(W_u m) \\
        x &\leftarrow x + u \odot (\tilde h - x), \quad x \leftarrow x + W_2\,\mathrm{SiLU}(W_1\,\mathrm{LN}\,x)

    All maps have biases. w is the softmax with c = Z^-1/2, or the squared relu or the Laplace function of each score
    with c one over the number of keys that are seen. Chunks are counted from a document's begin. It holds its residuals
    and norms itself, so it goes into a plain stack; ``stack.output_norm = "layer"`` norms what comes out last. The
    average is that of ``mega_ema``. An input of another width than the cell's goes through a matrix first. Matrices, κ
    and biases of distances start N(0, 0.02²), those of the MLP uniform within fan-in^-1/2, other biases 0. As published
    but for the MLP, which has a norm before it here as in the language models of the public code, and norms by mean and
    deviation alone. Blocks of ``weight``: u, z, r, h.

    Parameters, with Z, V values, F hidden, M modes and chunks of C: N(4M + 1) + V(N + 1) + (Z + V + 2N)(N + 1) +
    N(V + 1) + 4Z + 2N, 2Z or C of the bias, 2FN + F + 3N of the MLP, NI where I is not N.
    """

    Config = MegaConfig
    EXAMPLES = (
        MegaConfig(modes=2, shared=4, value_factor=1.5, chunk=3),
        MegaConfig(modes=3, shared=2, chunk=4, attention="laplace", bias="simple", factor=0.0),
        MegaConfig(modes=1, shared=4, chunk=5, attention="relu2", factor=1.0),
    )
    EQUATION = "m = EMA(LN x); h = silu(W m + U(r * att)); x = x + u*(h - x)"
    State = MegaState  # type: ignore[assignment]

    def __init__(self, in_width: int, width: int, config: MegaConfig):
        super().__init__(in_width, width, config)
        values, hidden = self._sizes(config, width)
        z = config.shared

        def pair(rows: int, columns: int) -> tuple[nn.Parameter, nn.Parameter]:
            return nn.Parameter(torch.empty(rows, columns)), nn.Parameter(torch.empty(rows))

        self.entry = nn.Parameter(torch.empty(width, in_width)) if in_width != width else None
        self.delta, self.alpha, self.beta, self.gamma = (
            nn.Parameter(torch.empty(width, config.modes)) for _ in range(4)
        )
        self.omega = nn.Parameter(torch.empty(width))
        self.gain, self.gain_bias = nn.Parameter(torch.empty(width)), nn.Parameter(torch.empty(width))
        self.weight, self.bias = pair(z + values + 2 * width, width)
        self.weight_v, self.bias_v = pair(values, width)
        self.out, self.out_bias = pair(width, values)
        self.scale, self.shift = nn.Parameter(torch.empty(2, z)), nn.Parameter(torch.empty(2, z))
        self.distance = nn.Parameter(torch.empty(2, z) if config.bias == "rotary" else torch.empty(config.chunk))
        self.mlp_gain = nn.Parameter(torch.empty(2, width)) if hidden else None
        self.up, self.up_bias = pair(hidden, width) if hidden else (None, None)
        self.down, self.down_bias = pair(width, hidden) if hidden else (None, None)
        kept = ParameterRule(drawn=False)
        self.parameter_rules = dict.fromkeys(("delta", "alpha", "beta", "gamma", "scale", "shift"), kept)
        if hidden:
            self.parameter_rules["mlp_gain"] = kept
        self.reset_parameters()

    @staticmethod
    def _sizes(config: MegaConfig, width: int) -> tuple[int, int]:
        """Widths of the values and of the MLP's hidden layer, 0 where there is none."""
        return hidden_width(config.value_factor, width), hidden_width(config.factor, width) if config.factor else 0

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        fill_average(self)
        fill(by_fan_in, [self.entry, self.up, self.down])
        fill(normal(0.02), [self.weight, self.weight_v, self.out, self.scale, self.distance])
        biases = (self.bias, self.bias_v, self.out_bias, self.up_bias, self.down_bias, self.shift, self.gain_bias)
        fill(nn.init.zeros_, biases)
        fill(nn.init.ones_, [self.gain])
        if self.mlp_gain is not None:
            fill(nn.init.ones_, [self.mlp_gain[0]])
            fill(nn.init.zeros_, [self.mlp_gain[1]])

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> MegaState:
        """Nothing was seen."""
        config, place = self.config, {"device": device, "dtype": dtype}
        s = torch.zeros(batch, self.width, config.modes, **place)
        sizes = config.shared, self._sizes(config, self.width)[0]
        keys, values = (s.new_zeros(batch, config.chunk - 1, 1, size) for size in sizes)
        return MegaState(s, keys, values, torch.zeros(batch, dtype=torch.int64, device=device))

    def system(self) -> Diagonal:
        """That of ``mega_ema``."""
        return damped_average(self.delta, self.alpha, self.beta, self.gamma)

    def mix(self, x: Tensor, state: MegaState, given: Given) -> tuple[Tensor, MegaState]:
        """One window of the class's equations."""
        config, width = self.config, self.width
        x = x if self.entry is None else self.linear("entry", x)
        normed = layer_norm(x, (width,), self.gain, self.gain_bias)
        average, new = self.drive(normed, state, given)
        m = silu(average + self.omega * normed)
        values = self._sizes(config, width)[0]
        u, z, r, h = self.linear("weight", m, "bias").split((width, config.shared, values, width), -1)
        q, k = (silu(z).unsqueeze(-2) * self.scale + self.shift).unbind(-2)
        v = silu(self.linear("weight_v", normed, "bias_v"))
        parts = [part.unsqueeze(2) for part in (k, v)]
        turned = turn_segment([state.keys, state.values], parts, state.fill, given.reset)
        attended = self._attend(q, turned.joined, turned.first)
        h = silu(h + self.linear("out", silu(r) * attended, "out_bias"))
        x = x + torch.sigmoid(u) * (h - x)
        if self.mlp_gain is not None:
            normed = layer_norm(x, (width,), self.mlp_gain[0], self.mlp_gain[1])
            x = x + self.linear("down", silu(self.linear("up", normed, "up_bias")), "down_bias")
        if given.show is not None:
            for name, value in {"z_pre": -u, "z": torch.sigmoid(-u)}.items():  # the share of x that is kept
                given.show(name, value)
        keys, kept = turned.kept
        return x, MegaState(new.s, keys, kept, turned.fill)

    def _attend(self, q: Tensor, joined: list[Tensor], first: Tensor) -> Tensor:
        """(batch, time, V). q: (batch, time, Z). first: (batch, time), the first key of each token's chunk."""
        keys, time = joined[0].shape[1], q.shape[1]
        own = torch.arange(keys - time, keys, device=q.device)
        distance = (own.unsqueeze(1) - torch.arange(keys, device=q.device)).clamp(0, self.config.chunk - 1)
        bias, scale = self._bias()[distance], self.config.shared**-0.5
        if self.config.attention != "softmax":
            q, scale = q / (own - first + 1).unsqueeze(-1), 1.0
        y, _ = bias_attention(
            q.unsqueeze(2), joined[0], joined[1], first, bias=bias, scale=scale, weights=self.config.attention,
            backend=self.wish_for("bias_attention"), subject=self.name,
        )  # fmt: skip
        return y.squeeze(2)

    def _bias(self) -> Tensor:
        """(chunk,): what is added to a score, by the distance from query to key."""
        if self.config.bias == "simple":
            return self.distance
        places = torch.arange(self.config.chunk, device=self.distance.device, dtype=torch.float64)
        cos, sin = (part.to(self.distance.dtype) for part in angles(places, self.config.shared, 10000.0))
        (a, b), (c, d) = (part.chunk(2) for part in self.distance)
        # a rotated one place against another: the product depends on the distance alone
        return (cos * (a * c + b * d) + sin * (a * d - b * c)).sum(-1)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """N(4M + 1) + V(N + 1) + (Z + V + 2N)(N + 1) + N(V + 1) + 4Z + 2N, bias, MLP and entry."""
        values, hidden = cls._sizes(config, width)
        z = config.shared
        maps = values * (width + 1) + (z + values + 2 * width) * (width + 1) + width * (values + 1)
        bias = 2 * z if config.bias == "rotary" else config.chunk
        mlp = 2 * hidden * width + hidden + 3 * width if hidden else 0
        entry = width * in_width if in_width != width else 0
        return width * (4 * config.modes + 1) + maps + 4 * z + 2 * width + bias + mlp + entry

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """Twice the matrices, and 2C(Z + V) of a full chunk."""
        values, hidden = cls._sizes(config, width)
        maps = values * width + (config.shared + values + 2 * width) * width + width * values + 2 * hidden * width
        entry = width * in_width if in_width != width else 0
        return 2 * (maps + entry) + 2 * config.chunk * (config.shared + values)
