"""Temporal convolutional network."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, ParameterRule, Place
from unrolled.cells.conv.base import CausalMap, ConvCell, ConvState
from unrolled.cells.mixer import Given
from unrolled.cells.parts.caches import Caches
from unrolled.core.errors import UsageError

__all__ = ["TCN", "TCNConfig"]

# the largest power of two that a layer's place may ask for
_MOST = 16


class TCNConfig(CellConfig):
    """Options of the temporal convolutional network."""

    name: Literal["tcn"] = "tcn"
    kernel: int = Field(default=3, ge=2, le=64, description="taps of both convolutions, the present input among them")
    dilation: int | None = Field(
        default=None,
        ge=1,
        le=1 << _MOST,
        description="steps between the taps (absent: 2^i in layer i of the stack, from 0)",
    )
    weight_norm: bool = Field(default=True, description="W = g V / |V| for each output of the convolutions")


class TCN(ConvCell):
    r"""A residual block of a temporal convolutional network (Bai, Kolter and Koltun 2018, arXiv:1803.01271).

    .. math::
        u &= \max(W_1 *_d x + b_1, 0), \quad v = \max(W_2 *_d u + b_2, 0) \\
        y_t &= \max(v_t + x_t, 0)

    Both convolutions have ``kernel`` taps d steps apart, the last at the present. Layer i of the stack, others than
    TCNs counted too, has d = 2^i unless ``dilation`` says otherwise; L blocks see 1 + 2(k - 1)(2^L - 1) inputs. Where
    widths differ, x goes through a matrix with a bias. Sites for dropout: u and v. The last inputs of both convolutions
    are carried, where the authors' code pads each window with zeros.

    Starts: convolutions as ``torch.nn.Conv1d``. The authors' code draws them normal with deviation 0.01, but into a
    tensor that its weight norm makes anew from g and V at the first call, so that it starts as here; its matrix for
    differing widths does start so, and so does ours. In a stack of kind "plain" this is the published network.

    Parameters: N(kI + 1) + N(kN + 1), 2N gains under weight norm; N(I + 1) where I and N differ.
    """

    Config = TCNConfig
    EXAMPLES = (
        TCNConfig(),
        TCNConfig(kernel=2, dilation=3, weight_norm=False),
    )
    EQUATION = "y = relu(x + relu(W2 * relu(W1 * x)))"

    def __init__(self, in_width: int, width: int, config: TCNConfig):
        super().__init__(in_width, width, config)
        self.first = CausalMap(in_width, width, config.kernel, config.weight_norm)
        self.second = CausalMap(width, width, config.kernel, config.weight_norm)
        if in_width != width:
            self.skip, self.skip_bias = nn.Parameter(torch.empty(width, in_width)), nn.Parameter(torch.empty(width))
        self.inner_sites = {"first": width, "second": width}
        if config.weight_norm:
            self.parameter_rules = dict.fromkeys(("first.weight", "second.weight"), ParameterRule(drawn=False))
        self._dilate(config.dilation or 1)
        self.reset_parameters()

    def _dilate(self, dilation: int) -> None:
        self.dilation, steps = dilation, (self.config.kernel - 1) * dilation
        self.caches = Caches(((steps, self.in_width), (steps, self.width)))

    def take_place(self, place: Place) -> None:
        """Dilate by the layer's number.

        Raises:
            UsageError: a layer so high that its taps would be more than 2^16 steps apart.
        """
        super().take_place(place)
        if self.config.dilation is None:
            if place.layer > _MOST:
                raise UsageError(
                    f"the taps of a tcn in layer {place.layer} would be 2^{place.layer} steps apart; set its dilation, "
                    "or take fewer layers."
                )
            self._dilate(2**place.layer)

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        self.first.fill()
        self.second.fill()
        if self.in_width != self.width:
            nn.init.normal_(self.skip, 0, 0.01)
            nn.init.uniform_(self.skip_bias, -(self.in_width**-0.5), self.in_width**-0.5)

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> ConvState:
        """Zeros."""
        return ConvState(self.caches.initial(batch, device, dtype))

    def mix(self, x: Tensor, state: ConvState, given: Given) -> tuple[Tensor, ConvState]:
        """One window of the class's equations."""
        first, second = self.caches.split(state.conv)
        u, first = self.convolve(self.first, x, first, given, self.dilation)
        u = given.drop("first", torch.relu(u))
        v, second = self.convolve(self.second, u, second, given, self.dilation)
        v = given.drop("second", torch.relu(v))
        if given.show is not None:
            given.show("hidden", u)
        entry = x if self.in_width == self.width else self.linear("skip", x, "skip_bias")
        return torch.relu(entry + v), ConvState(Caches.join([first, second]))

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """See the class."""
        first, second = (CausalMap.num_params(i, width, config.kernel, config.weight_norm) for i in (in_width, width))
        return first + second + (0 if in_width == width else width * (in_width + 1))

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2kN(I + N), and 2NI where the widths differ."""
        skip = 0 if in_width == width else 2 * width * in_width
        return 2 * config.kernel * width * (in_width + width) + skip
