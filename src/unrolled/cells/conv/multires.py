"""Multiresolution convolution."""

import math
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import gelu, glu, layer_norm

from unrolled.cells.base import CellConfig, ParameterRule
from unrolled.cells.conv.base import ConvState
from unrolled.cells.mixer import Given, MixerCell
from unrolled.cells.parts.caches import Caches
from unrolled.core.errors import UsageError
from unrolled.kernels.causal_conv import causal_conv

__all__ = ["MultiRes", "MultiResConfig", "Tree", "depth_of", "wavelet"]

_EPSILON = 1e-5
_ROOT = 3.0**0.5
# The low-pass filters of Daubechies' wavelets by their number of taps, oldest input first.
_LOW_PASS = {
    2: [0.5**0.5] * 2,
    4: [part / (4 * 2**0.5) for part in (1 + _ROOT, 3 + _ROOT, 3 - _ROOT, 1 - _ROOT)],
}


class MultiResConfig(CellConfig):
    """Options of the multiresolution convolution."""

    name: Literal["multires"] = "multires"
    kernel: int = Field(default=2, ge=2, le=16, description="taps of the two filters that all levels share")
    receptive_field: int = Field(
        default=256,
        ge=2,
        le=1 << 16,
        description="inputs that an output sees at least; it gives the number of levels",
    )
    init: Literal["uniform", "wavelet"] = Field(
        default="uniform",
        description="filters at the start: uniform, or those of Daubechies' wavelet with so many taps, 2 (Haar) or 4",
    )
    skip: Literal["shared", "unit"] = Field(
        default="shared",
        description="start of the weight of x in the sum: as the other weights, or uniform between -1 and 1",
    )
    residual: bool = Field(default=True, description="add the block's input and take a layer norm of the sum")

    @model_validator(mode="after")
    def _known_wavelet(self) -> "MultiResConfig":
        if self.init == "wavelet" and self.kernel not in _LOW_PASS:
            raise UsageError(
                f"there is no wavelet of {self.kernel} taps here; set kernel to 2 or 4, or init = uniform."
            )
        return self


def depth_of(kernel: int, receptive_field: int) -> int:
    """J, the least number of levels whose outputs see so many inputs: 1 + (k - 1)(2^J - 1) of them."""
    return math.ceil(math.log2((receptive_field - 1) / (kernel - 1) + 1))


def wavelet(taps: int) -> tuple[Tensor, Tensor]:
    """Low-pass and high-pass filter of Daubechies' wavelet, (taps,) each, the last tap that of the newest input."""
    low = torch.tensor(_LOW_PASS[taps], dtype=torch.float64)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(taps // 2)
    return low, low.flip(0) * signs


class Tree:
    """hi_j = lo_j * h1, lo_(j+1) = lo_j * h0 with taps 2^j steps apart, from lo_0 = x; channel by channel.

    Args:
        low, high: h0 and h1, (width, kernel). depth: number of levels. backend, subject: of ``causal_conv``.
    """

    def __init__(self, low: Tensor, high: Tensor, depth: int, backend: str = "auto", subject: str = ""):
        self.low, self.high, self.depth, self.backend, self.subject = low, high, depth, backend, subject

    @staticmethod
    def caches(width: int, kernel: int, depth: int) -> Caches:
        """The last inputs of each level: (k - 1)(2^J - 1) steps in all."""
        return Caches(((kernel - 1) * 2**j, width) for j in range(depth))

    def __call__(self, x: Tensor, caches: list[Tensor], reset: Tensor | None) -> tuple[list[Tensor], Tensor, Tensor]:
        """x: (batch, time, width). The details hi_0 ..., the last lo, and the caches after the window, joined."""

        def conv(taps: Tensor, j: int) -> tuple[Tensor, Tensor]:
            return causal_conv(x, taps, None, caches[j], reset, 2**j, backend=self.backend, subject=self.subject)

        details, after = [], []
        for j in range(self.depth):
            details.append(conv(self.high, j)[0])
            x, cache = conv(self.low, j)
            after.append(cache)
        return details, x, Caches.join(after)


class MultiRes(MixerCell):
    r"""Multiresolution convolution, MultiresConv (Shi, Wang and Fox 2023, arXiv:2305.01638), the whole block.

    .. math::
        u_0 &= x, \quad v_j = u_j *_{2^j} h_1, \quad u_{j+1} = u_j *_{2^j} h_0, \quad j < J \\
        y &= \textstyle\sum_j w_{J-j} \odot v_j + w_0 \odot u_J + w_{J+1} \odot x \\
        z &= \mathrm{LayerNorm}(x + W_2 \mathrm{GLU}(W_1 \mathrm{GELU}(y) + b_1) + b_2)

    A wavelet transform with learned filters h of k taps, the same for all levels, whose taps are 2^j steps apart; the
    paper's tree selection "fading". J = ⌈log2((R - 1)/(k - 1) + 1)⌉ with the receptive field R. The norm comes after
    the sum. Starts: filters uniform within k^-1/2, weights within (J + 2)^-1/2, maps as ``torch.nn.Linear``. Sites for
    dropout: y after the GELU, and the output of the GLU; the authors drop channels of whole sequences, which is
    ``dropout.mask = "window"``.

    Deviations: the receptive field is an option, where the authors' code takes the length of the sequence; where I and
    N differ, x goes through a matrix; the norm is by layer, not by batch; their selection "uniform" is not here. The
    state is the last (k - 1) 2^j inputs of each level. Prepared for decoding the maps are packed; the filters are too
    small to gain by it.

    Parameters I(2k + J + 2) + 2N(I + 1) + N(N + 1), and with ``residual`` 2N, and NI where I and N differ.
    """

    Config = MultiResConfig
    State = ConvState
    EXAMPLES = (
        MultiResConfig(receptive_field=5),
        MultiResConfig(kernel=4, receptive_field=8, init="wavelet", skip="unit"),
        MultiResConfig(kernel=3, receptive_field=13, residual=False),
    )
    EQUATION = "y = norm(x + W2 GLU(W1 gelu(sum of w_j * levels)))"
    operation = "causal_conv"

    def __init__(self, in_width: int, width: int, config: MultiResConfig):
        super().__init__(in_width, width, config)
        self.depth = depth_of(config.kernel, config.receptive_field)
        self.caches = Tree.caches(in_width, config.kernel, self.depth)
        self.low, self.high = (nn.Parameter(torch.empty(in_width, config.kernel)) for _ in range(2))
        self.mixing = nn.Parameter(torch.empty(in_width, self.depth + 2))
        self.weight, self.bias = nn.Parameter(torch.empty(2 * width, in_width)), nn.Parameter(torch.empty(2 * width))
        self.out, self.out_bias = nn.Parameter(torch.empty(width, width)), nn.Parameter(torch.empty(width))
        if config.residual:
            self.norm, self.norm_bias = nn.Parameter(torch.empty(width)), nn.Parameter(torch.empty(width))
            if in_width != width:
                self.skip = nn.Parameter(torch.empty(width, in_width))
        self.inner_sites = {"levels": in_width, "hidden": width}
        self.parameter_rules = dict.fromkeys(("low", "high", "mixing"), ParameterRule(drawn=False))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        config = self.config
        if config.init == "wavelet":
            for own, taps in zip((self.low, self.high), wavelet(config.kernel), strict=True):
                own.copy_(taps.expand_as(own))
        else:
            for own in (self.low, self.high):
                own.uniform_(-(config.kernel**-0.5), config.kernel**-0.5)
        self.mixing.uniform_(-((self.depth + 2) ** -0.5), (self.depth + 2) ** -0.5)
        if config.skip == "unit":
            self.mixing[:, -1].uniform_(-1, 1)
        pairs = [(self.weight, self.in_width), (self.bias, self.in_width), (self.out, self.width)]
        for own, fan_in in [*pairs, (self.out_bias, self.width)]:
            own.uniform_(-(fan_in**-0.5), fan_in**-0.5)
        if config.residual:
            self.norm.fill_(1)
            self.norm_bias.zero_()
            if self.in_width != self.width:
                self.skip.uniform_(-(self.in_width**-0.5), self.in_width**-0.5)

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> ConvState:
        """Zeros."""
        return ConvState(self.caches.initial(batch, device, dtype))

    def levels(self, x: Tensor, state: ConvState, given: Given) -> tuple[Tensor, ConvState]:
        """y of the class's equations, (batch, time, in_width), which is linear in x, and the state after the window."""
        tree = Tree(self.low, self.high, self.depth, self.wish, self.name)
        details, coarse, after = tree(x, self.caches.split(state.conv), given.reset)
        *weights, last = self.mixing.unbind(1)
        y = last * x
        for weight, part in zip(weights, (coarse, *reversed(details)), strict=True):
            y = torch.addcmul(y, weight, part)
        return y, ConvState(after)

    def mix(self, x: Tensor, state: ConvState, given: Given) -> tuple[Tensor, ConvState]:
        """One window of the class's equations."""
        y, after = self.levels(x, state, given)
        hidden = glu(self.linear("weight", given.drop("levels", gelu(y)), "bias"), -1)
        if given.show is not None:
            given.show("hidden", hidden)
        z = self.linear("out", given.drop("hidden", hidden), "out_bias")
        if self.config.residual:
            entry = x if self.in_width == self.width else self.linear("skip", x)
            z = layer_norm(entry + z, (self.width,), self.norm, self.norm_bias, _EPSILON)
        return z, after

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """See the class."""
        depth = depth_of(config.kernel, config.receptive_field)
        count = in_width * (2 * config.kernel + depth + 2) + 2 * width * (in_width + 1) + width * (width + 1)
        return count + (2 * width + _skipped(in_width, width) if config.residual else 0)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """4NI + 2N², and 2NI where the widths differ."""
        skip = 2 * _skipped(in_width, width) if config.residual else 0
        return 4 * width * in_width + 2 * width * width + skip


def _skipped(in_width: int, width: int) -> int:
    return 0 if in_width == width else in_width * width
