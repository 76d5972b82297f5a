"""The scalar LSTM with exponential gates (sLSTM) of xLSTM."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.functional import group_norm, logsigmoid

from unrolled.cells.base import CellConfig, Noise, Place, StepCell, Tap, Weights
from unrolled.cells.mixer import Given, MixerCell
from unrolled.cells.parts.short_conv import ShortConv
from unrolled.core.errors import UsageError
from unrolled.kernels.cell_loop import cell_loop

__all__ = ["SLSTM", "SLSTMConfig"]

_EPSILON = 1e-5
_FAR = 1e4  # more than the logarithms of any two gates differ


class SLSTMConfig(CellConfig):
    """Options of the sLSTM."""

    name: Literal["slstm"] = "slstm"
    heads: int = Field(default=4, ge=1, description="heads, each with recurrent weights of its own")
    kernel: int = Field(
        default=4, ge=0, description="inputs that the input and forget gates see, by a convolution; 0 is no convolution"
    )

    @field_validator("kernel")
    @classmethod
    def _one_is_none(cls, value: int) -> int:
        if value == 1:
            raise UsageError("a convolution of one input sees no other; take kernel 0 for none, or at least 2.")
        return value


class _LoopState(NamedTuple):
    """Each (batch, width)."""

    h: Tensor
    c: Tensor
    n: Tensor
    m: Tensor


class SLSTMState(NamedTuple):
    """y, c, normaliser, stabiliser: (batch, width). conv: (batch, kernel - 1, width), the last inputs."""

    y: Tensor
    c: Tensor
    normaliser: Tensor
    stabiliser: Tensor
    conv: Tensor


class PlainState(NamedTuple):
    """That without a convolution."""

    y: Tensor
    c: Tensor
    normaliser: Tensor
    stabiliser: Tensor


class _Loop(StepCell):
    """The recurrence; its input are the products of the inputs, head by head, in each the blocks i, f, z, o."""

    State = _LoopState

    def __init__(self, width: int, config: SLSTMConfig):
        super().__init__(4 * width, width, config)
        size = width // config.heads
        self.weight_hh = nn.Parameter(torch.empty(config.heads, 4 * size, size))
        self.bias = nn.Parameter(torch.empty(4 * width))

    def project(self, x: Tensor, w: Weights) -> Tensor:
        """x + b."""
        return x + w["bias"]

    def step(self, pre: Tensor, state: _LoopState, w: Weights, tap: Tap) -> tuple[Tensor, _LoopState]:
        """One step of the equations of :class:`SLSTM`."""
        heads = [head.chunk(4, -1) for head in w.linear("weight_hh", state.h, pre).chunk(self.config.heads, -1)]
        into_i, into_f, into_z, into_o = (torch.cat([head[k] for head in heads], -1) for k in range(4))
        # n is 0 before the first step, where nothing is kept, and at least 1 from then on: of i and f one is 1
        kept = logsigmoid(into_f) + state.m - _FAR * torch.relu(1 - state.n)
        m = torch.maximum(kept, into_i)
        i, f = torch.exp(into_i - m), torch.exp(kept - m)
        z, o = torch.tanh(into_z), torch.sigmoid(into_o)
        c, n = f * state.c + i * z, f * state.n + i
        h = o * c / n
        for name, value in (("i_pre", into_i), ("f_pre", into_f), ("g_pre", into_z), ("o_pre", into_o)):
            tap(name, value)
        for name, value in (("g", z), ("o", o), ("c", c), ("normaliser", n), ("stabiliser", m), ("y", h)):
            tap(name, value)
        return h, _LoopState(h, c, n, m)


class SLSTM(MixerCell):
    r"""sLSTM (Beck et al. 2024, xLSTM), the layer of its block: convolution, exponential gates, a norm of each head.

    .. math::
        u &= \mathrm{SiLU}(\mathrm{conv}(x)), \quad
            \tilde i, \tilde f = W u_t + R y_{t-1} + b, \quad \tilde z, \tilde o = W x_t + R y_{t-1} + b \\
        m_t &= \max(\log \sigma(\tilde f) + m_{t-1}, \tilde i), \quad i = e^{\tilde i - m_t}, \quad
            f = e^{\log \sigma(\tilde f) + m_{t-1} - m_t} \\
        c_t &= f c_{t-1} + i \tanh \tilde z, \quad n_t = f n_{t-1} + i, \quad y_t = \sigma(\tilde o) c_t / n_t, \quad
            h_t = \mathrm{GN}(y_t)

    All matrices W and R are block-diagonal, one block a head; GN normalises each head. Gates see the last ``kernel``
    inputs, so the layer is a window of convolution and input products around the loop of ``cell_loop``, and the last
    inputs are part of the state (where n is the normaliser, m the stabiliser). R starts at 0, W at N(0, 2/(5N)), biases
    at 0 but that of f: 5 - 12 (j/(d-1))^(0.3 + 1.3 l/(L-1)) for channel j of d in each head, layer l of L. In a stack
    of kind "residual" with an MLP of kind "geglu" and factor 1.3 it is the published block.

    At the first step, where n is 0, m = ĩ. Deviations: that is so for each number by itself (the published code looks
    whether every n of the batch is 0). The published code stores the norm's weight as 1 + w, and calls the map of ĩ
    fgate and that of f̃ igate. Of I inputs and N ≠ I outputs a linear map to the width comes first; with equal widths
    there is none. Zoneout acts on y.

    Parameters, with heads of d and kernel k: 8Nd + 5N, N(k + 1) for the convolution, and NI where the widths differ.
    """

    Config = SLSTMConfig
    State = SLSTMState
    EXAMPLES = (SLSTMConfig(heads=2), SLSTMConfig(heads=1, kernel=0), SLSTMConfig(heads=1, kernel=2))
    EQUATION = "c = f*c + exp(i)*z; n = f*n + exp(i); h = norm(o*c/n)"
    operation = "cell_loop"
    recurrent_weights = ("loop.weight_hh",)
    zoneout_fields = ("y",)

    def __init__(self, in_width: int, width: int, config: SLSTMConfig):
        super().__init__(in_width, width, config)
        size = width // config.heads
        self.widen = nn.Linear(in_width, width, bias=False) if in_width != width else None
        self.conv = ShortConv(width, config.kernel, activation="silu") if config.kernel else None
        self.weight_if = nn.Parameter(torch.empty(config.heads, 2 * size, size))
        self.weight_zo = nn.Parameter(torch.empty(config.heads, 2 * size, size))
        self.loop = _Loop(width, config)
        self.norm = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        for part in (self.widen, self.conv):
            if part is not None:
                part.reset_parameters()
        for weight in (self.weight_if, self.weight_zo):
            nn.init.normal_(weight, std=(2 / (5 * self.width)) ** 0.5)
        nn.init.zeros_(self.loop.weight_hh)
        nn.init.ones_(self.norm)
        self._start_biases()

    def take_place(self, place: Place) -> None:
        """The deeper the layer, the fewer of its channels forget slowly."""
        super().take_place(place)
        self._start_biases()

    def _start_biases(self) -> None:
        size = self.width // self.config.heads
        depth = self.place.layer / max(1, self.place.layers - 1)
        forget = 5 - 12 * (torch.arange(size) / max(1, size - 1)) ** (0.3 + 1.3 * depth)
        with torch.no_grad():
            self.loop.bias.zero_()
            self.loop.bias.view(self.config.heads, 4, size)[:, 1] = forget.to(self.loop.bias)

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """Zeros."""
        plain = PlainState(*self.loop.initial_state(batch, device, dtype))
        return plain if self.conv is None else SLSTMState(*plain, conv=self.conv.initial(batch, device, dtype))

    def backends(self) -> list[str]:
        """Those of ``cell_loop``."""
        return self.loop.backends()

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        """One window of the class's equations."""
        x = x if self.widen is None else self.linear("widen.weight", x)
        seen, cache = x, None
        if self.conv is not None:
            seen, cache = self.conv(x, state.conv, given.reset, self.wish_for("causal_conv"), self.name)
        # head by head, the blocks i, f beside z, o
        parts = self.linear("weight_if", seen), self.linear("weight_zo", x)
        pre = torch.cat([part.unflatten(-1, (self.config.heads, -1)) for part in parts], -1).flatten(2)
        taps: dict[str, list[Tensor]] = {}

        def listen(name: str, value: Tensor) -> None:
            taps.setdefault(name, []).append(value)

        self.loop.compute = self.compute
        start = _LoopState(state.y, state.c, state.normaliser, state.stabiliser)
        noise = Noise(zoneout={"h": given.zoneout["y"]}) if given.zoneout else None
        y, last = cell_loop(self.loop, pre, start, given.reset, noise, listen if given.show is not None else None)
        h = group_norm(y.flatten(0, 1), self.config.heads, self.norm, eps=_EPSILON).view_as(y)
        if given.show is not None:
            for name, values in taps.items():
                given.show(name, torch.stack(values, 1))
        return h, PlainState(*last) if cache is None else SLSTMState(last.h, last.c, last.n, last.m, cache)

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """The heads."""
        return config.heads

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """8Nd + 5N, + N(k + 1), + NI where the widths differ."""
        conv = ShortConv.num_params(width, config.kernel) if config.kernel else 0
        return width * (8 * (width // config.heads) + 5) + conv + (width * in_width if in_width != width else 0)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """16Nd, + 2NI where the widths differ."""
        return 16 * width * (width // config.heads) + (2 * width * in_width if in_width != width else 0)
