"""Gated linear attention."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from unrolled.cells.matrix.base import SMALL_GAIN, HeadsConfig, MatrixCell, MatrixState, fill, xavier
from unrolled.cells.mixer import Given
from unrolled.cells.parts.heads import HeadNorm, cut_heads
from unrolled.kernels.matrix_scan import matrix_scan

__all__ = ["GLA", "GLAConfig"]


class GLAConfig(HeadsConfig):
    """Options of gated linear attention."""

    name: Literal["gla"] = "gla"
    rank: int = Field(default=16, ge=1, description="rank of the matrix that makes the decays")
    temperature: float = Field(
        default=16.0, gt=0, description="divides the logarithm of the decays; larger keeps longer"
    )


class GLA(MatrixCell):
    r"""Gated linear attention (Yang et al. 2023, arXiv:2312.06635): a decay for each key, of the input.

    .. math::
        q, k, v, g &= W_q x_t, W_k x_t, W_v x_t, W_g x_t, \quad
        \alpha = \sigma(W_2 W_1 x_t + b)^{1/\tau} \\
        S_t &= \mathrm{Diag}(\alpha) S_{t-1} + k v^\top \\
        y_t &= W_o (\mathrm{RMSNorm}(K^{-1/2} S_t^\top q) \odot \mathrm{SiLU}(g))

    Half as many keys as the width, all of it as values, τ = 16, W_1 of rank 16. The norm is of each head, with one gain
    for all. Xavier start with gain 2^-2.5, as flash-linear-attention. The blocks of ``weight`` are q, k (N/2 each), v,
    g.

    Parameters 3NI + N² + R(I + N/2) + N/2, and N/H of the norm.
    """

    Config = GLAConfig
    EXAMPLES = (GLAConfig(heads=2), GLAConfig(heads=1, rank=3, temperature=2.0))
    EQUATION = "S = Diag(α) S + k v'; y = norm(S' q) * g"

    def __init__(self, in_width: int, width: int, config: GLAConfig):
        super().__init__(in_width, width, config)
        self.weight = nn.Parameter(torch.empty(3 * width, in_width))
        self.decay_in = nn.Parameter(torch.empty(config.rank, in_width))
        self.decay_out = nn.Parameter(torch.empty(width // 2, config.rank))
        self.decay_bias = nn.Parameter(torch.zeros(width // 2))
        self.norm = HeadNorm(config.heads, width // config.heads)
        self.out = nn.Parameter(torch.empty(width, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrices anew."""
        fill(xavier(SMALL_GAIN), [self.weight, self.decay_in, self.decay_out, self.out])

    @classmethod
    def head_sizes(cls, config: Any, width: int) -> tuple[int, int, int]:
        """N / 2H keys, N / H values."""
        return config.heads, width // 2 // config.heads, width // config.heads

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """Two values for each key."""
        return 2 * config.heads

    def mix(self, x: Tensor, state: MatrixState, given: Given) -> tuple[Tensor, MatrixState]:
        """One window of the class's equations."""
        heads, keys, _ = self.head_sizes(self.config, self.width)
        half = self.width // 2
        q, k, v, g = self.linear("weight", x).split((half, half, self.width, self.width), -1)
        pre = self.linear("decay_out", self.linear("decay_in", x), "decay_bias")
        decay = logsigmoid(pre) / self.config.temperature
        parts = (cut_heads(part, heads) for part in (q, k, v, decay))
        o, s = matrix_scan(*parts, scale=keys**-0.5, **self.options(state, given))
        if given.show is not None:
            given.show("a", decay.exp())
        return self.linear("out", self.gated(self.normed(self.norm, o), g)), MatrixState(s)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """3NI + N² + R(I + N/2) + N/2 + N/H."""
        low = config.rank * (in_width + width // 2) + width // 2
        return width * (3 * in_width + width) + low + width // config.heads

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """6NI + 2N² + 2R(I + N/2), and 2 H K V to read."""
        low = config.rank * (in_width + width // 2)
        return 2 * (width * (3 * in_width + width) + low) + cls.read_flops(config, width)
