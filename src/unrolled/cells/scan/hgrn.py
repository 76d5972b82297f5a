"""Hierarchically gated recurrent network."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from unrolled.cells.base import CellConfig, ParameterRule, Place
from unrolled.cells.mixer import Given, MixerCell
from unrolled.cells.parts.state import ChannelState, as_complex, as_real
from unrolled.kernels.diag_scan import diag_scan
from unrolled.kernels.rms_norm import rms_norm

__all__ = ["HGRN", "HGRNConfig", "LowerBounds"]

_EPSILON = 1e-5


class LowerBounds(nn.Module):
    """The lower bounds of the forget gates of all layers of a stack, which rise from 0 at the first one.

    Args:
        layers: that share them. width: channels.
    """

    parameter_rules = {"table": ParameterRule(decay=False, drawn=False)}

    def __init__(self, layers: int, width: int):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(layers, width))

    def of(self, layer: int) -> Tensor:
        """(width,): the sum over layers up to this one, but the first, of a softmax over the layers."""
        return torch.softmax(self.table, 0)[1 : layer + 1].sum(0)


class HGRNConfig(CellConfig):
    """Options of the HGRN."""

    name: Literal["hgrn"] = "hgrn"
    form: Literal["complex", "real"] = Field(
        default="complex",
        description="complex: states that turn by a learned angle, as in the paper; real: public code",
    )


class HGRN(MixerCell):
    r"""Hierarchically gated recurrent network (Qin et al. 2023, arXiv:2311.04823): forget gates with a lower bound that
    rises from layer to layer.

    .. math::
        \mu_t &= \sigma(W_\mu x_t + b_\mu), \quad \lambda_t = \gamma + (1 - \gamma) \odot \mu_t \\
        c_t &= \mathrm{SiLU}(W_c x_t + b_c) \in \mathbb{C}^N \text{ (on both parts)} \\
        s_t &= \lambda_t e^{i\theta} \odot s_{t-1} + (1 - \lambda_t) \odot c_t \\
        h_t &= W_o \, \mathrm{LN}(\mathrm{SiLU}(W_g x_t + b_g) \odot [\mathrm{Re}\, s_t, \mathrm{Im}\, s_t]) + b_o

    γ of layer l is the sum, over the layers from the second to l, of a softmax over the layers of one learned table,
    which all such cells of a stack share; it starts as zeros, so that γ = l / L, and is 0 in the first layer and in a
    cell that stands alone. θ is learned and of no input. Form ``real`` is what flash-linear-attention computes: no θ
    and no imaginary part, no biases, and h = W_o (RMSNorm(s) ⊙ SiLU(W_g x)). θ starts as 10000^(-j/N), as rotary
    angles; the paper gives no other start here. The paper's text was not at hand: that the output gate has one number
    for each part, and is a SiLU, is our reading. Weights as those of ``torch.nn.Linear``. The blocks of ``weight`` are
    μ, c (real, imaginary), g. The traced f is μ, and a is λ; c has real parts of s first.

    Parameters, with its row of the table: complex 5N(I + 1) + 2N² + N + 6N; real 3NI + N² + 2N.
    """

    Config = HGRNConfig
    State = ChannelState
    EXAMPLES = (HGRNConfig(), HGRNConfig(form="real"))
    EQUATION = "s = λ e^(iθ)*s + (1-λ)*c, λ >= γ of the layer"
    operation = "diag_scan"
    recurrent_weights = ("weight",)

    def __init__(self, in_width: int, width: int, config: HGRNConfig):
        super().__init__(in_width, width, config)
        parts = self._parts(config)
        self.weight = nn.Parameter(torch.empty((1 + 2 * parts) * width, in_width))
        self.bounds = LowerBounds(1, width)
        self.norm_weight = nn.Parameter(torch.empty(parts * width))
        self.out = nn.Parameter(torch.empty(width, parts * width))
        imaginary = parts == 2
        self.bias = nn.Parameter(torch.empty(len(self.weight))) if imaginary else None
        self.norm_bias = nn.Parameter(torch.empty(parts * width)) if imaginary else None
        self.out_bias = nn.Parameter(torch.empty(width)) if imaginary else None
        self.theta = nn.Parameter(torch.empty(width)) if imaginary else None
        self.reset_parameters()

    @staticmethod
    def _parts(config: HGRNConfig) -> int:
        """Numbers of a state."""
        return 2 if config.form == "complex" else 1

    @property
    def parameter_rules(self) -> dict[str, ParameterRule]:  # type: ignore[override]
        """The angle keeps its start and is not decayed."""
        return {} if self.theta is None else {"theta": ParameterRule(decay=False, drawn=False)}

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        for weight, bias in ((self.weight, self.bias), (self.out, self.out_bias)):
            bound = weight.shape[1] ** -0.5
            for parameter in (weight, bias):
                if parameter is not None:
                    nn.init.uniform_(parameter, -bound, bound)
        self.norm_weight.fill_(1)
        if self.norm_bias is not None and self.theta is not None:
            self.norm_bias.zero_()
            self.theta.copy_(10000.0 ** (-torch.arange(self.width) / self.width))

    @classmethod
    def make_shared(cls, config: Any, in_width: int, width: int, count: int) -> nn.Module:
        """The table of lower bounds."""
        return LowerBounds(count, width)

    def take_place(self, place: Place) -> None:
        """Take the bounds that all layers share."""
        super().take_place(place)
        if isinstance(place.shared, LowerBounds):
            self.bounds = place.shared

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> ChannelState:
        """Zeros."""
        return ChannelState(torch.zeros(batch, self._parts(self.config) * self.width, device=device, dtype=dtype))

    def mix(self, x: Tensor, state: ChannelState, given: Given) -> tuple[Tensor, ChannelState]:
        """One window of the class's equations."""
        width, parts = self.width, self._parts(self.config)
        sizes = (width, parts * width, parts * width)
        into_f, c, g = self.linear("weight", x, None if self.bias is None else "bias").split(sizes, -1)
        f, c, g, bound = torch.sigmoid(into_f), silu(c), silu(g), self.bounds.of(self.place.index)
        kept, written = bound + (1 - bound) * f, (1 - bound) * torch.sigmoid(-into_f)
        options: dict[str, Any] = {"backend": self.wish, "subject": self.name}
        if self.theta is None:
            states, last = diag_scan(kept, written * c, state.c, given.reset, **options)
            y = g * rms_norm(states, self.norm_weight, _EPSILON, self.compute.wish("rms_norm"))
        else:
            turn = torch.polar(torch.ones_like(self.theta), self.theta)
            factors, values = kept * turn, as_complex(written.repeat(1, 1, 2) * c)
            turned, end = diag_scan(factors, values, as_complex(state.c), given.reset, **options)
            states, last = as_real(turned), as_real(end)
            y = layer_norm(g * states, (2 * width,), self.norm_weight, self.norm_bias, _EPSILON)
        h = self.linear("out", y, None if self.out_bias is None else "out_bias")
        if given.show is not None:
            for name, value in {"f_pre": into_f, "f": f, "a": kept, "g": c, "c": states}.items():
                given.show(name, value)
        return h, ChannelState(last)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """Complex 5N(I + 1) + 2N² + N + 6N; real 3NI + N² + 2N."""
        if cls._parts(config) == 1:
            return width * (3 * in_width + width + 2)
        return width * (5 * (in_width + 1) + 2 * width + 1 + 6)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """Complex 10NI + 4N²; real 6NI + 2N²."""
        parts = cls._parts(config)
        return 2 * width * ((1 + 2 * parts) * in_width + parts * width)
