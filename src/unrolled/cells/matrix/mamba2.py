"""Mamba-2."""

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus

from unrolled.cells.base import CellConfig, ParameterRule
from unrolled.cells.matrix.base import ConvMatrixState, MatrixCell, by_fan_in, fill
from unrolled.cells.mixer import Given
from unrolled.cells.parts.heads import HeadNorm, cut_heads
from unrolled.cells.parts.short_conv import ShortConv
from unrolled.cells.parts.steps import fill_step_bias
from unrolled.kernels.matrix_scan import matrix_scan

__all__ = ["Mamba2", "Mamba2Config"]


class Mamba2Config(CellConfig):
    """Options of Mamba-2."""

    name: Literal["mamba2"] = "mamba2"
    states: int = Field(default=128, ge=1, le=1 << 16, description="keys of a head")
    head: int = Field(default=64, ge=1, le=1 << 16, description="values of a head")
    expand: int = Field(default=2, ge=1, le=64, description="channels as a multiple of the width")
    groups: int = Field(
        default=1, ge=1, le=1024, description="groups of heads; the heads of one share keys and queries"
    )
    kernel: int = Field(default=4, ge=1, le=64, description="inputs that the convolution sees")


class Mamba2(MatrixCell):
    r"""Mamba-2 (Dao and Gu 2024, arXiv:2405.21060): a state space with a decay for each head, as a matrix state.

    .. math::
        z, x', B, C, \delta &= W x_t, \quad [x', B, C] = \mathrm{SiLU}(\mathrm{conv}_4([x', B, C])) \\
        \delta &= \mathrm{softplus}(\delta + b), \quad a = \exp(-e^{A} \delta) \\
        S_t &= a S_{t-1} + B (\delta x')^\top, \quad y = S_t^\top C + D x' \\
        h_t &= W_o\,\mathrm{RMSNorm}(y \odot \mathrm{SiLU}(z))

    The norm is over the channels of a group, after the gate. e^A starts uniform on [1, 16], b such that softplus(b) is
    log-uniform on [0.001, 0.1], D at 1; none of the three is decayed. In the convolution and matrices torch's own
    starts. transformers starts e^A at 1...H. The blocks of ``weight`` are z, x' (E each), B, C (G K each), δ (H), with
    E = ``expand`` N channels.

    Parameters (2E + 2GK + H)I + (E + 2GK)(C + 1) + 3H + E + NE.
    """

    Config = Mamba2Config
    EXAMPLES = (
        Mamba2Config(),
        Mamba2Config(states=3, head=4, groups=2),
        Mamba2Config(states=4, head=2, expand=1, kernel=2),
    )
    EQUATION = "S = a S + B (δ x)'; y = norm((S' C + D x) * z)"
    parameter_rules = {name: ParameterRule(decay=False, drawn=False) for name in ("log_rate", "step_bias", "skip")}

    def __init__(self, in_width: int, width: int, config: Mamba2Config):
        super().__init__(in_width, width, config)
        heads, channels = self.head_sizes(config, width)[0], config.expand * width
        self.weight = nn.Parameter(torch.empty(sum(self._blocks(config, width)), in_width))
        self.conv = ShortConv(self._blocks(config, width)[1], config.kernel, activation="silu")
        self.log_rate, self.step_bias, self.skip = (nn.Parameter(torch.empty(heads)) for _ in range(3))
        self.norm = HeadNorm(config.groups, channels // config.groups, gain="channels")
        self.out = nn.Parameter(torch.empty(width, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        fill(by_fan_in, [self.weight, self.out])
        fill(lambda rate: rate.uniform_(1, 16).log_(), [self.log_rate])
        fill(fill_step_bias, [self.step_bias])
        fill(nn.init.ones_, [self.skip])

    @classmethod
    def head_sizes(cls, config: Any, width: int) -> tuple[int, int, int]:
        """E / P heads."""
        return config.expand * width // config.head, config.states, config.head

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """Whole heads in whole groups."""
        whole = config.head * config.groups
        return whole // math.gcd(whole, config.expand)

    @classmethod
    def _blocks(cls, config: Any, width: int) -> list[int]:
        """Rows of ``weight``: z, what is convolved, δ."""
        channels = config.expand * width
        return [channels, channels + 2 * config.groups * config.states, cls.head_sizes(config, width)[0]]

    def mix(self, x: Tensor, state: ConvMatrixState, given: Given) -> tuple[Tensor, ConvMatrixState]:
        """One window of the class's equations."""
        heads, keys, _ = self.head_sizes(self.config, self.width)
        groups, channels = self.config.groups, self.config.expand * self.width
        z, xbc, pre = self.linear("weight", x).split(self._blocks(self.config, self.width), -1)
        xbc, cache = self.convolved(xbc, state, given)
        v, k, q = xbc.split((channels, groups * keys, groups * keys), -1)
        step = softplus(pre + self.step_bias)
        log_decay, v = -self.log_rate.exp() * step, cut_heads(v, heads)
        k, q = (
            cut_heads(part, groups).unsqueeze(3).expand(-1, -1, -1, heads // groups, -1).flatten(2, 3)
            for part in (k, q)
        )
        o, s = matrix_scan(q, k, step.unsqueeze(-1) * v, log_decay, **self.options(state, given))
        skip = self.skip.unsqueeze(-1).expand(-1, self.config.head).flatten()
        y = self.gated(o.flatten(2), z, skip, v.flatten(2))
        if given.show is not None:
            given.show("delta", step)
            given.show("a", log_decay.exp())
        return self.linear("out", self.normed(self.norm, cut_heads(y, groups))), self.after(s, cache)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """(2E + 2GK + H)I + (E + 2GK)(C + 1) + 3H + E + NE."""
        z, convolved, heads = cls._blocks(config, width)
        rows = z + convolved + heads
        return rows * in_width + ShortConv.num_params(convolved, config.kernel) + 3 * heads + z + width * z

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2(2E + 2GK + H)I + 2NE, and 2EK to read."""
        blocks = cls._blocks(config, width)
        return 2 * (sum(blocks) * in_width + width * blocks[0]) + cls.read_flops(config, width)
