"""Real-gated linear recurrent unit, in its recurrent block."""

import math
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import gelu, softplus

from unrolled.cells.base import CellConfig, ParameterRule, Place
from unrolled.cells.mixer import Given, MixerCell
from unrolled.cells.parts.short_conv import ShortConv
from unrolled.kernels.diag_scan import diag_scan

__all__ = ["RGLRU", "RGLRUConfig"]

_KERNEL, _SHARPNESS = 4, 8.0


class RGLRUConfig(CellConfig):
    """Options of the RG-LRU's block."""

    name: Literal["rg_lru"] = "rg_lru"
    heads: int = Field(default=4, ge=1, description="diagonal blocks of the gates' matrices")
    expand: float = Field(default=1.0, gt=0, le=1024, description="width of the recurrence, as a multiple of the width")
    decay: Literal["code", "paper"] = Field(
        default="code",
        description="what starts uniform on [0.9, 0.999]: the factor of a gate that is open by an eighth (released "
        "code), or that of an open one (paper)",
    )


class RGLRUState(NamedTuple):
    """c: (batch, channels). conv: (batch, 3, channels), the last inputs of the convolution. seen: (batch, 1), 1 once a
    token was read, 0 before."""

    c: Tensor
    conv: Tensor
    seen: Tensor


def _expansion(config: RGLRUConfig) -> Fraction:
    """``expand`` as a ratio of small numbers: 1.3333 is 4/3."""
    return Fraction(config.expand).limit_denominator(64)


def _channels(config: RGLRUConfig, width: int) -> int:
    return round(width * _expansion(config))


class _Root(torch.autograd.Function):
    """The square root, whose slope is at most 1000: that of a share near 0 would be infinite in narrow types."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sqrt()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return grad * (4 * x).clamp_min(1e-6).rsqrt()


class RGLRU(MixerCell):
    r"""Recurrent block of Hawk and Griffin around the RG-LRU (De et al. 2024, arXiv:2402.19427).

    .. math::
        y_t &= \mathrm{GELU}(W_y x_t + b_y), \quad u_t = \mathrm{conv}_4(W_x x_t + b_x) \\
        r_t &= \sigma(W_a u_t + b_a), \quad i_t = \sigma(W_i u_t + b_i), \quad
        \log a_t = -8\, r_t \odot \mathrm{softplus}(\Lambda) \\
        c_t &= a_t \odot c_{t-1} + \sqrt{1 - a_t^2} \odot i_t \odot u_t, \quad h_t = W_o (y_t \odot c_t) + b_o

    W_a and W_i are block-diagonal, one block a head. At the first token of a text the factor of i ⊙ u is 1 in place of
    the root, as in the released code, which the state's field ``seen`` is for; 1 - a² is made by expm1, and the slope
    of the root is bounded by 1000. The recurrence has E channels, ``expand`` times the width (4/3 in the paper). Λ
    starts so that a^p is uniform by its square on [0.9², 0.999²], with p the exponent that goes with ``decay``: in the
    paper a itself, of a gate that is open; in the released code a where 8r = 1, so that an open gate's a lies between
    0.43 and 0.99. W_x, W_y start normal with variance 1/I, W_a, W_i with one over a block's width, the convolution with
    0.01/4, W_o with 2/(L E) in a stack of L layers, biases 0. GELU is the one by tanh. The block of weight ``weight``
    is y, x. The traced r is the recurrence gate: where it is open, the state forgets.

    Parameters 2E(I + 1) + 5E + 2(E²/heads + E) + E + N(E + 1).
    """

    Config = RGLRUConfig
    State = RGLRUState
    EXAMPLES = (RGLRUConfig(heads=2), RGLRUConfig(heads=1, decay="paper"), RGLRUConfig(heads=2, expand=1.5))
    EQUATION = "c = a*c + sqrt(1-a²)*i*u, log a = -8 r softplus(Λ)"
    operation = "diag_scan"
    recurrent_weights = ("weight_a", "weight_i")
    parameter_rules = {
        "decay": ParameterRule(decay=False, drawn=False),
        **dict.fromkeys(("weight_a", "weight_i", "conv.weight", "out"), ParameterRule(drawn=False)),
    }

    def __init__(self, in_width: int, width: int, config: RGLRUConfig):
        super().__init__(in_width, width, config)
        channels = _channels(config, width)
        size = channels // config.heads
        self.weight = nn.Parameter(torch.empty(2 * channels, in_width))
        self.bias = nn.Parameter(torch.empty(2 * channels))
        self.conv = ShortConv(channels, _KERNEL)
        self.weight_a, self.weight_i = (nn.Parameter(torch.empty(config.heads, size, size)) for _ in range(2))
        self.bias_a, self.bias_i, self.decay = (nn.Parameter(torch.empty(channels)) for _ in range(3))
        self.out, self.out_bias = nn.Parameter(torch.empty(width, channels)), nn.Parameter(torch.empty(width))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew, for the cell's place."""
        size = self.weight_a.shape[-1]
        nn.init.normal_(self.weight, std=self.in_width**-0.5)
        nn.init.normal_(self.weight_a, std=size**-0.5)
        nn.init.normal_(self.weight_i, std=size**-0.5)
        nn.init.normal_(self.conv.weight, std=0.1 * _KERNEL**-0.5)
        nn.init.normal_(self.out, std=math.sqrt(2 / (self.place.layers * self.out.shape[1])))
        for bias in (self.bias, self.conv.bias, self.bias_a, self.bias_i, self.out_bias):
            if bias is not None:
                bias.zero_()
        squared = 0.9**2 + (0.999**2 - 0.9**2) * torch.rand_like(self.decay)
        # softplus(decay) is minus the logarithm of that radius, or an eighth of it
        wanted = -0.5 * squared.log() / (1 if self.config.decay == "code" else _SHARPNESS)
        self.decay.copy_(torch.log(torch.expm1(wanted)))

    def take_place(self, place: Place) -> None:
        """Begin as a layer of so deep a stack does."""
        super().take_place(place)
        nn.init.normal_(self.out, std=math.sqrt(2 / (place.layers * self.out.shape[1])))

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """Heads, such that their blocks are whole for any ``expand``."""
        return config.heads * _expansion(config).denominator

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> RGLRUState:
        """Zeros."""
        c = torch.zeros(batch, len(self.decay), device=device, dtype=dtype)
        return RGLRUState(c, self.conv.initial(batch, device, dtype), c.new_zeros(batch, 1))

    def mix(self, x: Tensor, state: RGLRUState, given: Given) -> tuple[Tensor, RGLRUState]:
        """One window of the class's equations."""
        y, u = self.linear("weight", x, "bias").chunk(2, -1)
        u, cache = self.conv(u, state.conv, given.reset, self.wish_for("causal_conv"), self.name)
        into_r, into_i = self.linear("weight_a", u, "bias_a"), self.linear("weight_i", u, "bias_i")
        r, i = torch.sigmoid(into_r), torch.sigmoid(into_i)
        log_a = -_SHARPNESS * r * softplus(self.decay)
        first = torch.zeros_like(x[..., 0], dtype=torch.bool)
        first[:, 0] = state.seen[:, 0] <= 0
        first = first if given.reset is None else first | given.reset
        scale = torch.where(first.unsqueeze(-1), 1, _Root.apply(-torch.expm1(2 * log_a)))
        a = log_a.exp()
        c, last = diag_scan(a, scale * i * u, state.c, first, backend=self.wish, subject=self.name)
        h = self.linear("out", gelu(y, approximate="tanh") * c, "out_bias")
        new = RGLRUState(last, cache, torch.ones_like(state.seen))
        if given.show is not None:
            for name, value in {"r_pre": into_r, "i_pre": into_i, "r": r, "i": i, "a": a, "c": c}.items():
                given.show(name, value)
        return h, new

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """2E(I + 1) + 5E + 2(E²/heads + E) + E + N(E + 1)."""
        channels = _channels(config, width)
        return channels * (2 * (in_width + 1) + 5 + 2 * (channels // config.heads + 1) + 1) + width * (channels + 1)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """4EI + 4E²/heads + 2NE."""
        channels = _channels(config, width)
        return channels * (4 * in_width + 4 * (channels // config.heads) + 2 * width)
