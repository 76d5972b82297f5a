"""Retention."""

import functools
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.matrix.base import SMALL_GAIN, HeadsConfig, MatrixCell, MatrixState, fill, xavier
from unrolled.cells.mixer import Given, MixerCell
from unrolled.cells.parts.heads import HeadNorm, cut_heads
from unrolled.kernels.matrix_scan import matrix_scan

__all__ = ["RetNet", "RetNetConfig", "turned"]


class RetNetConfig(HeadsConfig):
    """Options of retention."""

    name: Literal["retnet"] = "retnet"
    value_factor: int = Field(default=2, ge=1, le=16, description="values as a multiple of the keys")
    angles: Literal["xpos", "rotary"] = Field(
        default="xpos",
        description="by which queries and keys turn: xpos, 10000^-linspace(0, 1, K/2), as the authors' code; rotary, "
        "10000^(-2i/K), as flash-linear-attention",
    )


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs of neighbouring channels of x (..., n) turned by angles of these cosines and sines (..., n/2)."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


class RetNet(MatrixCell):
    r"""Multi-scale retention (Sun et al. 2023, arXiv:2307.08621): a decay of its own for each head, which no input
    moves.

    .. math::
        q, k, v, g &= W_q x_t, K^{-1/2} W_k x_t, W_v x_t, W_g x_t \\
        S_t &= \gamma R(-\theta) S_{t-1} + k v^\top, \quad \gamma = 1 - 2^{-5-h} \\
        y_t &= W_o (\mathrm{RMSNorm}(S_t^\top q) \odot \mathrm{SiLU}(g))

    R turns neighbouring pairs of keys. The published forms turn q and k by the token's position instead, which is the
    same; here the state turns, so that nothing grows with the text. The norm of each head has no gain, as in the
    authors' code; the paper says group norm, and that code's parallel form divides scores by their sums first, which
    the norm undoes. The slowest head's decay reaches beyond any training window: its state is carried, its gradient is
    not. The blocks of ``weight`` are q, k (N each), v, g (``value_factor`` N each).

    Parameters 2NI(1 + F) + FN².
    """

    Config = RetNetConfig
    EXAMPLES = (RetNetConfig(heads=2), RetNetConfig(heads=2, value_factor=1, angles="rotary"))
    EQUATION = "S = γ R S + k v'; y = norm(S' q) * g"

    def __init__(self, in_width: int, width: int, config: RetNetConfig):
        super().__init__(in_width, width, config)
        factor = config.value_factor
        self.weight = nn.Parameter(torch.empty(2 * width * (1 + factor), in_width))
        self.out = nn.Parameter(torch.empty(width, factor * width))
        self.norm = HeadNorm(config.heads, factor * width // config.heads, gain="none")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrices anew."""
        fill(xavier(SMALL_GAIN), [self.weight, self.out])

    @classmethod
    def head_sizes(cls, config: Any, width: int) -> tuple[int, int, int]:
        """N / H keys, ``value_factor`` times as many values."""
        return config.heads, width // config.heads, config.value_factor * width // config.heads

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """Two keys for each head, which turn together."""
        return 2 * config.heads

    def settled(self) -> MixerCell:
        """Angles and decays are made once for each length of a window."""
        made = super().settled()
        made._constants = functools.lru_cache(maxsize=4)(self._constants)  # type: ignore[assignment]
        return made

    def _constants(self, time: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Cosines and sines of the angles at steps 1...time, (time, 1, K/2), and the logarithm of each head's decay,
        (H, 1). In float64 at first: an angle grows with the window."""
        half = self.head_sizes(self.config, self.width)[1] // 2
        place = {"device": device, "dtype": torch.float64}
        powers = (
            torch.linspace(0, 1, half, **place) if self.config.angles == "xpos" else torch.arange(half, **place) / half
        )
        angle = torch.arange(1, time + 1, **place).view(-1, 1, 1) * 10000.0**-powers
        kept = torch.log1p(-(2.0 ** (-5 - torch.arange(self.config.heads, **place))))
        return angle.cos().to(dtype), angle.sin().to(dtype), kept.to(dtype).unsqueeze(-1)

    def mix(self, x: Tensor, state: MatrixState, given: Given) -> tuple[Tensor, MatrixState]:
        """One window of the class's equations."""
        heads, keys, _ = self.head_sizes(self.config, self.width)
        values = self.config.value_factor * self.width
        q, k, v, g = self.linear("weight", x).split((self.width, self.width, values, values), -1)
        cos, sin, kept = self._constants(x.shape[1], x.device, x.dtype)
        q, k = turned(cut_heads(q, heads), cos, sin), turned(cut_heads(k, heads), cos, sin)
        decay = kept.expand(*x.shape[:2], heads, 1)
        o, s = matrix_scan(q, k, cut_heads(v, heads), decay, scale=keys**-0.5, **self.options(state, given))
        y = self.gated(self.normed(self.norm, o), g)
        # the state turns back into the frame of its last step
        return self.linear("out", y), MatrixState(turned(s.mT, cos[-1], -sin[-1]).mT)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """2NI(1 + F) + FN²."""
        return width * (2 * in_width * (1 + config.value_factor) + config.value_factor * width)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """Twice the parameters, and 2 H K V to read."""
        return 2 * cls.num_params(config, in_width, width) + cls.read_flops(config, width)
