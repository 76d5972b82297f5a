"""The LSTM with a matrix memory (mLSTM of xLSTM)."""

from fractions import Fraction
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, silu

from unrolled.cells.base import ParameterRule, Place
from unrolled.cells.matrix.base import HeadsConfig, MatrixCell, fill, normal
from unrolled.cells.mixer import Given
from unrolled.cells.parts.heads import HeadNorm, cut_heads
from unrolled.cells.parts.short_conv import ShortConv
from unrolled.cells.parts.stabiliser import stabilise
from unrolled.kernels.diag_scan import diag_scan
from unrolled.kernels.matrix_scan import matrix_scan

__all__ = ["MatrixLSTM", "MatrixLSTMConfig"]

_EPSILON, _CAP = 1e-6, 15.0


class MatrixLSTMConfig(HeadsConfig):
    """Options of the matrix LSTM."""

    name: Literal["matrix_lstm"] = "matrix_lstm"
    form: Literal["block", "large"] = Field(
        default="block",
        description="block: of the paper, with a convolution, twice as wide inside; large: of the 7B model",
    )
    kernel: int = Field(default=4, ge=1, le=64, description="inputs that the convolution sees (block)")
    blocks: int = Field(
        default=4, ge=1, le=1 << 16, description="rows of the blocks of the matrices of q, k and v (block)"
    )
    keys: float = Field(default=0.5, gt=0, le=16, description="width of q and of k, as a multiple of the width (large)")


def _share(config: Any) -> Fraction:
    """``keys`` as a ratio of small numbers."""
    return Fraction(config.keys).limit_denominator(64)


class LSTMState(NamedTuple):
    """In units of e^stabiliser: s (batch, heads, keys, values), normaliser (batch, heads * keys), the sum of the keys.
    top: (batch, heads), the logarithm of the largest weight. conv: (batch, kernel - 1, channels)."""

    s: Tensor
    normaliser: Tensor
    stabiliser: Tensor
    conv: Tensor


class LargeState(NamedTuple):
    """s, normaliser, stabiliser as in :class:`LSTMState`."""

    s: Tensor
    normaliser: Tensor
    stabiliser: Tensor


class MatrixLSTM(MatrixCell):
    r"""LSTM with a matrix memory and exponential gates: the mLSTM of xLSTM (Beck et al. 2024, arXiv:2405.04517); here
    ``mlstm`` is the multiplicative LSTM.

    .. math::
        C_t &= f_t C_{t-1} + i_t k v^\top, \quad n_t = f_t n_{t-1} + i_t k, \quad
        i_t = e^{\tilde{i}_t}, \quad f_t = \sigma(\tilde{f}_t) \\
        r_t &= C_t^\top q / (\max(|n_t^\top q|, 1) + \epsilon), \quad k \text{ in units of } K^{-1/2}

    All is kept divided by e^m, m_t = max(log f_t + m_{t-1}, ĩ_t), which changes nothing but that no exponential
    overflows; ε = 10⁻⁶ is in those units, as in the public code.

    Form ``block``, E = 2N channels: [x', z] = W x; u = SiLU(conv(x')); q, k from u and v from x' by block-diagonal
    matrices; ĩ, f̃ from [q, k, v]; h = W_o((norm(r) + l ⊙ u) ⊙ SiLU(z)). Form ``large`` (the 7B model, Beck et al.
    2025): q, k of A = ``keys`` N, v, o of N, ĩ, f̃ from x, both capped by 15 tanh(·/15), h = W_o(norm(r) ⊙ σ(o)).
    The norm takes the mean of each head off, with 10⁻⁵ beside the variance in ``block`` and 10⁻⁶ in ``large``; the
    gains are 1 + w in the public code of ``block``, w here. The blocks of ``weight`` in ``large`` are q, k, v, o,
    ĩ, f̃. Starts of the public code: matrices of the input N(0, 2/5N), W_o N(0, (2/(L√N))²), gates' matrices 0,
    bias of f 3...6 over the heads, of i N(0, 0.1²), in ``large`` -10. The public code takes E up to a multiple of
    64.

    Parameters block: 2EI + EN + 3EB + (C + 1)E + 6EH + 2H + 2E, with blocks of B rows; large: 2(A + N + H)I + N² + N
    + 2H.
    """

    Config = MatrixLSTMConfig
    EXAMPLES = (
        MatrixLSTMConfig(heads=2),
        MatrixLSTMConfig(heads=1, kernel=2, blocks=2),
        MatrixLSTMConfig(heads=2, form="large"),
        MatrixLSTMConfig(heads=2, form="large", keys=0.25),
    )
    EQUATION = "C = f*C + e^i k v'; r = C' q / max(|n q|, 1)"

    def __init__(self, in_width: int, width: int, config: MatrixLSTMConfig):
        super().__init__(in_width, width, config)
        heads, _, values = self.head_sizes(config, width)
        channels = heads * values
        self.gate_bias = nn.Parameter(torch.empty(2 * heads))
        self.out = nn.Parameter(torch.empty(width, channels))
        if config.form == "block":
            self.weight = nn.Parameter(torch.empty(2 * channels, in_width))
            shape = channels // config.blocks, config.blocks, config.blocks
            self.weight_q, self.weight_k, self.weight_v = (nn.Parameter(torch.empty(shape)) for _ in range(3))
            self.weight_gates = nn.Parameter(torch.empty(2 * heads, 3 * channels))
            self.conv = ShortConv(channels, config.kernel)
            self.through = nn.Parameter(torch.empty(channels))
            self.norm = HeadNorm(heads, values, "layer", gain="channels")
        else:
            self.weight = nn.Parameter(torch.empty(self._rows(config, width), in_width))
            self.norm = HeadNorm(heads, values, "layer", gain="channels", epsilon=1e-6)
        self.reset_parameters()

    @property
    def parameter_rules(self) -> dict[str, ParameterRule]:  # type: ignore[override]
        """The gates keep their start, and biases are not decayed."""
        rules = {"gate_bias": ParameterRule(decay=False)}
        return rules | ({"weight_gates": ParameterRule(drawn=False)} if self.config.form == "block" else {})

    def reset_parameters(self) -> None:
        """Draw the weights anew, for the cell's place."""
        heads, width = self.config.heads, self.width
        small = normal((2 / (5 * self.in_width)) ** 0.5)
        fill(small, [self.weight])
        fill(normal(2 / (self.place.layers * width**0.5)), [self.out])
        with torch.no_grad():
            i_bias, f_bias = self.gate_bias.chunk(2)
            fill(lambda bias: bias.copy_(torch.linspace(3, 6, heads)), [f_bias])
            if self.config.form == "large":
                fill(lambda bias: bias.fill_(-10), [i_bias])
                return
            fill(normal(0.1), [i_bias])
            fill(normal((2 / (5 * self.out.shape[1])) ** 0.5), [self.weight_q, self.weight_k, self.weight_v])
            fill(nn.init.zeros_, [self.weight_gates])
            fill(nn.init.ones_, [self.through])

    def take_place(self, place: Place) -> None:
        """Scale what comes out to the depth of the stack."""
        fill(lambda out: out.mul_(self.place.layers / place.layers), [self.out])
        super().take_place(place)

    @classmethod
    def head_sizes(cls, config: Any, width: int) -> tuple[int, int, int]:
        """block: 2N / H keys and values; large: A / H keys, N / H values."""
        heads = config.heads
        if config.form == "block":
            return heads, 2 * width // heads, 2 * width // heads
        return heads, round(width * _share(config)) // heads, width // heads

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """Whole heads, and whole blocks; in ``large`` whole keys of a head."""
        if config.form == "large":
            return _share(config).denominator * config.heads
        return next(
            n for n in range(1, config.heads * config.blocks + 1) if not (2 * n % config.heads or 2 * n % config.blocks)
        )

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """Zeros."""
        heads, keys, values = self.head_sizes(self.config, self.width)
        s = torch.zeros(batch, heads, keys, values, device=device, dtype=dtype)
        parts = s, s.new_zeros(batch, heads * keys), s.new_zeros(batch, heads)
        return LargeState(*parts) if self.conv is None else LSTMState(*parts, self.conv.initial(batch, device, dtype))

    def _vectors(
        self, x: Tensor, state: Any, given: Given
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
        """q, k, v, the gates' pre-activations (i, f), and what the output needs."""
        width, heads = self.width, self.config.heads
        if self.conv is None:
            keys = heads * self.head_sizes(self.config, width)[1]
            sizes = (keys, keys, width, width, 2 * heads)
            q, k, v, o, pre = self.linear("weight", x).split(sizes, -1)
            return q, k, v, _CAP * torch.tanh((pre + self.gate_bias) / _CAP), (o,)
        inside, z = self.linear("weight", x).chunk(2, -1)
        mixed, cache = self.convolved(inside, state, given)
        u = silu(mixed)
        q, k, v = self.linear("weight_q", u), self.linear("weight_k", u), self.linear("weight_v", inside)
        pre = self.linear("weight_gates", torch.cat([q, k, v], -1), "gate_bias")
        assert cache is not None
        return q, k, v, pre, (u, z, cache)

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        """One window of the class's equations."""
        heads, keys, _ = self.head_sizes(self.config, self.width)
        q, k, v, pre, rest = self._vectors(x, state, given)
        i_pre, f_pre = pre.chunk(2, -1)
        gates = stabilise(logsigmoid(f_pre), i_pre, state.stabiliser, given.reset)
        q, k, v = cut_heads(q, heads), cut_heads(k, heads), cut_heads(v, heads)
        k = k * (keys**-0.5 * gates.log_write.exp()).unsqueeze(-1)
        o, s = matrix_scan(q, k, v, gates.log_decay, **self.options(state, given))
        kept = gates.log_decay.exp().unsqueeze(-1).expand(k.shape).flatten(2)
        options: dict[str, Any] = {"backend": self.wish_for("diag_scan"), "subject": self.name}
        u, last = diag_scan(kept, k.flatten(2), state.normaliser, given.reset, **options)
        weight = (q * u.view(q.shape)).sum(-1).abs()
        read = o / (torch.maximum(weight, (-gates.top).exp()) + _EPSILON).unsqueeze(-1)
        self.show_gate(given, "f", f_pre)
        if given.show is not None:
            given.show("i_pre", i_pre)
        y, end = self.normed(self.norm, read), (s, last, gates.top[:, -1])
        if self.conv is None:
            return self.linear("out", y * torch.sigmoid(rest[0])), LargeState(*end)
        mixed, z, cache = rest
        return self.linear("out", self.gated(y, z, self.through, mixed)), LSTMState(*end, cache)

    @classmethod
    def _rows(cls, config: Any, width: int) -> int:
        """Of ``weight`` in ``large``: q, k, v, o, ĩ, f̃."""
        return 2 * (config.heads * cls.head_sizes(config, width)[1] + width + config.heads)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """block: 2EI + EN + 3EB + (C + 1)E + 6EH + 2H + 2E; large: 2(A + N + H)I + N² + N + 2H."""
        heads = config.heads
        if config.form == "large":
            return cls._rows(config, width) * in_width + width * width + width + 2 * heads
        inside = 2 * width
        return inside * (2 * in_width + width + 3 * config.blocks + config.kernel + 1 + 6 * heads + 2) + 2 * heads

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """Two for each number of a matrix, and 2 H K V to read."""
        heads = config.heads
        if config.form == "large":
            return 2 * (cls._rows(config, width) * in_width + width * width) + cls.read_flops(config, width)
        inside = 2 * width
        products = inside * (2 * in_width + width + 3 * config.blocks + 6 * heads)
        return 2 * products + cls.read_flops(config, width)
