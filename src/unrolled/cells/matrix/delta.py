"""DeltaNet, and Gated DeltaNet."""

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from unrolled.cells.base import ParameterRule
from unrolled.cells.matrix.base import (
    HeadsConfig,
    MatrixCell,
    by_fan_in,
    fill,
    unit,
)
from unrolled.cells.mixer import Given
from unrolled.cells.parts.heads import HeadNorm, cut_heads
from unrolled.cells.parts.short_conv import ShortConv
from unrolled.cells.parts.steps import fill_step_bias
from unrolled.kernels.matrix_scan import delta_scan

__all__ = ["DeltaConfig", "DeltaNet", "DeltaNetConfig", "GatedDeltaNet", "GatedDeltaNetConfig"]


class DeltaConfig(HeadsConfig):
    """Options of the delta rule."""

    kernel: int = Field(default=4, ge=0, le=64, description="inputs that the convolution of q, k, v sees (0: none)")
    negative: bool = Field(
        default=False, description="write with up to twice the share, so that a step may turn what is kept around"
    )
    gate: bool = Field(default=False, description="multiply the heads' outputs by SiLU(W_g x)")


class DeltaNetConfig(DeltaConfig):
    """Options of DeltaNet."""

    name: Literal["deltanet"] = "deltanet"


class GatedDeltaNetConfig(DeltaConfig):
    """Options of Gated DeltaNet."""

    name: Literal["gated_deltanet"] = "gated_deltanet"
    gate: bool = Field(default=True, description="multiply the heads' outputs by SiLU(W_g x)")


class DeltaNet(MatrixCell):
    r"""DeltaNet (Schlag et al. 2021; Yang et al. 2024, arXiv:2406.06484): each key's value is corrected, not added to.

    .. math::
        q, k, v &= \mathrm{SiLU}(\mathrm{conv}_4(W_q x_t, W_k x_t, W_v x_t)), \quad
        \hat{q} = q/|q|, \; \hat{k} = k/|k|, \quad \beta = \sigma(W_\beta x_t) \\
        S_t &= S_{t-1} + \beta \hat{k} (v - S_{t-1}^\top \hat{k})^\top \\
        y_t &= W_o\,\mathrm{RMSNorm}(K^{-1/2} S_t^\top \hat{q}) \quad (\odot\, \mathrm{SiLU}(W_g x_t))

    β is twice that where ``negative``, so that an eigenvalue of the transition may be -1 (Grazzi et al. 2024). Keys are
    of unit length, with 10⁻⁶ beside the square, without which the rule is unstable. N / H keys and values; the norm is
    of each head, with one gain for all. Weights as those of ``torch.nn.Linear``. The blocks of ``weight`` are q, k, v,
    β (H), and g where there is a gate. The traced i is β before it is doubled.

    Parameters 3NI + HI + N² + 3NC, N/H of the norm, and NI of the gate.
    """

    Config: type[DeltaConfig] = DeltaNetConfig
    EXAMPLES: tuple[Any, ...] = (
        DeltaNetConfig(heads=2),
        DeltaNetConfig(heads=1, kernel=0, negative=True),
        DeltaNetConfig(heads=2, kernel=2, gate=True),
    )
    EQUATION = "S = S + β k (v - S' k)'; y = norm(S' q)"

    def __init__(self, in_width: int, width: int, config: Any):
        super().__init__(in_width, width, config)
        heads, keys, values = self.head_sizes(config, width)
        self.weight = nn.Parameter(torch.empty(sum(self.blocks(config, width)), in_width))
        channels = heads * (2 * keys + values)
        self.conv = ShortConv(channels, config.kernel, bias=False, activation="silu") if config.kernel else None
        self.norm = HeadNorm(heads, values)
        self.out = nn.Parameter(torch.empty(width, heads * values))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrices anew."""
        fill(by_fan_in, [self.weight, self.out])

    @classmethod
    def head_sizes(cls, config: Any, width: int) -> tuple[int, int, int]:
        """N / H keys and values."""
        return config.heads, width // config.heads, width // config.heads

    @classmethod
    def blocks(cls, config: Any, width: int) -> list[int]:
        """Rows of ``weight``: q, k and v together, β, the gate."""
        heads, keys, values = cls.head_sizes(config, width)
        return [heads * (2 * keys + values), heads, heads * values if config.gate else 0]

    def decays(self, parts: list[Tensor], given: Given) -> Tensor | None:
        """The logarithm of what a head keeps, (batch, time, heads), from the rest of the projections; None is all."""
        return None

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        """One window of the class's equations."""
        heads, keys, values = self.head_sizes(self.config, self.width)
        qkv, pre, gate, *rest = self.linear("weight", x).split(self.blocks(self.config, self.width), -1)
        self.show_gate(given, "i", pre)
        qkv, cache = self.convolved(qkv, state, given)
        qkv = silu(qkv) if self.conv is None else qkv
        q, k, v = (cut_heads(part, heads) for part in qkv.split((heads * keys, heads * keys, heads * values), -1))
        beta = torch.sigmoid(pre) * (2 if self.config.negative else 1)
        options = self.options(state, given) | {"scale": keys**-0.5}
        o, s = delta_scan(unit(q), unit(k), v, beta, self.decays(rest, given), **options)
        y = self.normed(self.norm, o)
        return self.linear("out", self.gated(y, gate) if self.config.gate else y), self.after(s, cache)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """I times the rows, C for each convolved channel, NHV + V."""
        heads, keys, values = cls.head_sizes(config, width)
        conv = heads * (2 * keys + values) * config.kernel
        return in_width * sum(cls.blocks(config, width)) + conv + width * heads * values + values

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2I times the rows, 2NHV, and 4 H K V to read the state with q and k."""
        heads, _, values = cls.head_sizes(config, width)
        products = in_width * sum(cls.blocks(config, width)) + width * heads * values
        return 2 * products + 2 * cls.read_flops(config, width)


class GatedDeltaNet(DeltaNet):
    r"""Gated DeltaNet (Yang, Kautz and Hatamizadeh 2024, arXiv:2412.06464): the delta rule with a decay of the input.

    .. math::
        \alpha &= \exp(-e^{A} \, \mathrm{softplus}(W_a x_t + b)) \\
        S_t &= \alpha (I - \beta \hat{k} \hat{k}^\top) S_{t-1} + \beta \hat{k} v^\top \\
        y_t &= W_o (\mathrm{RMSNorm}(K^{-1/2} S_t^\top \hat{q}) \odot \mathrm{SiLU}(W_g x_t))

    The rest as in :class:`DeltaNet`; the error is read from the decayed state. 3N/4 keys in all and twice as many
    values, as the published models. e^A starts uniform on (0, 16), b such that softplus(b) is log-uniform on [0.001,
    0.1]; both are not decayed. The blocks of ``weight`` are q, k, v, β (H), g, a (H).

    Parameters 6NI (4.5NI without the gate) + 2HI + 1.5N² + 3NC + 2H, and 3N/2H of the norm.
    """

    Config = GatedDeltaNetConfig
    EXAMPLES = (
        GatedDeltaNetConfig(heads=1),
        GatedDeltaNetConfig(heads=2, kernel=0, negative=True),
        GatedDeltaNetConfig(heads=1, kernel=3, gate=False),
    )
    EQUATION = "S = α (I - β k k') S + β k v'; y = norm(S' q) * g"
    parameter_rules = {name: ParameterRule(decay=False, drawn=False) for name in ("log_rate", "step_bias")}

    def __init__(self, in_width: int, width: int, config: Any):
        super().__init__(in_width, width, config)
        self.log_rate, self.step_bias = (nn.Parameter(torch.empty(config.heads)) for _ in range(2))
        fill(lambda rate: rate.uniform_(1e-3, 16).log_(), [self.log_rate])
        fill(fill_step_bias, [self.step_bias])

    @classmethod
    def head_sizes(cls, config: Any, width: int) -> tuple[int, int, int]:
        """3N / 4H keys, twice as many values."""
        keys = 3 * width // 4 // config.heads
        return config.heads, keys, 2 * keys

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """Three keys for four numbers of the width, the same number for each head."""
        return 4 * config.heads // math.gcd(3, config.heads)

    @classmethod
    def blocks(cls, config: Any, width: int) -> list[int]:
        """Rows of ``weight``: q, k and v together, β, the gate, the decay."""
        return [*super().blocks(config, width), config.heads]

    def decays(self, parts: list[Tensor], given: Given) -> Tensor:
        """-e^A softplus(W_a x + b)."""
        (pre,) = parts
        log_decay = -self.log_rate.exp() * softplus(pre + self.step_bias)
        if given.show is not None:
            given.show("a", log_decay.exp())
        return log_decay

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """Those of the rule, and 2H."""
        return super().num_params(config, in_width, width) + 2 * config.heads
