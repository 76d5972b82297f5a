"""Gated convolutional network."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, ParameterRule
from unrolled.cells.conv.base import CausalMap, ConvCell, ConvState
from unrolled.cells.mixer import Given
from unrolled.cells.parts.caches import Caches

__all__ = ["GCNN", "GCNNConfig"]


class GCNNConfig(CellConfig):
    """Options of the gated convolutional network."""

    name: Literal["gcnn"] = "gcnn"
    kernel: int = Field(default=4, ge=1, le=64, description="inputs that an output sees, the present one among them")
    layers: int = Field(default=1, ge=1, le=16, description="gated convolutions of that kernel in the block")
    bottleneck: int | None = Field(
        default=None,
        ge=1,
        le=1 << 20,
        description="width of those convolutions, between gated maps down to it and up again (absent: none)",
    )
    weight_norm: bool = Field(default=True, description="W = g V / |V| for each output of the convolutions")
    residual: bool = Field(
        default=True, description="add the block's input, through a map without bias where widths differ"
    )


class GCNN(ConvCell):
    r"""A residual block of a gated convolutional network (Dauphin, Fan, Auli and Grangier 2016, arXiv:1612.08083).

    .. math::
        h_l(X) &= (X * W + b) \odot \sigma(X * V + c) \\
        y &= x + h_L(\cdots h_1(x))

    Convolutions see the present input and the kernel - 1 before it: the paper pads with zeros on the left, here the
    last inputs are carried. With ``bottleneck`` the block is 1-k-1: a map down, ``layers`` convolutions, a map up, all
    gated. Nothing follows the sum (pre-activation); where widths differ, x goes through a matrix. The outputs of each
    convolution are the blocks value, gate. Weights start normal with variance 2 / (kernel · inputs) (He et al. 2015),
    biases zero. Sites for dropout: the input of each convolution, as in fairseq's model of the paper, which also
    multiplies sums by the root of 1/2; we do not. Several blocks are several layers of a plain stack.

    Parameters: for each convolution 2N'(k I' + 1), and 2N' gains under weight norm; IN where I and N differ.
    """

    Config = GCNNConfig
    EXAMPLES = (
        GCNNConfig(),
        GCNNConfig(kernel=3, layers=2, weight_norm=False),
        GCNNConfig(kernel=3, bottleneck=3),
        GCNNConfig(kernel=2, residual=False),
    )
    EQUATION = "h = x + (x*W + b) σ(x*V + c)"

    def __init__(self, in_width: int, width: int, config: GCNNConfig):
        super().__init__(in_width, width, config)
        shapes = list(_shapes(config, in_width, width))
        self.convs = nn.ModuleList(CausalMap(i, 2 * out, kernel, config.weight_norm) for i, out, kernel in shapes)
        self.caches = Caches((kernel - 1, i) for i, _, kernel in shapes)
        self.inner_sites = {f"input{k}": i for k, (i, _, _) in enumerate(shapes)}
        if config.residual and in_width != width:
            self.skip = nn.Parameter(torch.empty(width, in_width))
        names = [f"convs.{k}.weight" for k in range(len(shapes))]
        self.parameter_rules = dict.fromkeys(names, ParameterRule(drawn=False)) if config.weight_norm else {}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        for conv in self._convs():
            conv.fill((2 / conv.weight[0].numel()) ** 0.5)
        if hasattr(self, "skip"):
            nn.init.uniform_(self.skip, -(self.in_width**-0.5), self.in_width**-0.5)

    def _convs(self) -> Iterator[CausalMap]:
        yield from self.convs  # type: ignore[misc]

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> ConvState:
        """Zeros."""
        return ConvState(self.caches.initial(batch, device, dtype))

    def mix(self, x: Tensor, state: ConvState, given: Given) -> tuple[Tensor, ConvState]:
        """One window of the class's equations."""
        h, after = x, []
        for k, (conv, cache) in enumerate(zip(self._convs(), self.caches.split(state.conv), strict=True)):
            both, cache = self.convolve(conv, given.drop(f"input{k}", h), cache, given)
            value, gate = both.chunk(2, -1)
            o = torch.sigmoid(gate)
            h = value * o
            after.append(cache)
            if given.show is not None and k == len(self.convs) - 1:
                given.show("o_pre", gate)
                given.show("o", o)
        if self.config.residual:
            h = h + (self.linear("skip", x) if self.in_width != self.width else x)
        return h, ConvState(Caches.join(after))

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """See the class."""
        shapes = _shapes(config, in_width, width)
        count = sum(CausalMap.num_params(i, 2 * out, kernel, config.weight_norm) for i, out, kernel in shapes)
        return count + _skipped(config, in_width, width)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """Two for each weight of the convolutions and of the map around them."""
        taps = sum(2 * out * i * kernel for i, out, kernel in _shapes(config, in_width, width))
        return 2 * (taps + _skipped(config, in_width, width))


def _shapes(config: GCNNConfig, in_width: int, width: int) -> Iterator[tuple[int, int, int]]:
    """(inputs, outputs, kernel) of each convolution."""
    inside = config.bottleneck or width
    kernels = [config.kernel] * config.layers
    widths = [in_width, *[inside] * config.layers]
    if config.bottleneck:
        kernels, widths = [1, *kernels, 1], [in_width, *[inside] * (config.layers + 1), width]
    for (i, out), kernel in zip(pairwise(widths), kernels, strict=True):
        yield i, out, kernel


def _skipped(config: GCNNConfig, in_width: int, width: int) -> int:
    return in_width * width if config.residual and in_width != width else 0
