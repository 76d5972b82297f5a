"""Long convolutions with free filters."""

import functools
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, gelu, glu

from unrolled.cells.base import CellConfig, ParameterRule
from unrolled.cells.mixer import Given, MixerCell
from unrolled.cells.parts.short_conv import ShortConv
from unrolled.cells.parts.streamed import WAYS, Parts, Way
from unrolled.cells.ssm.cell import by_documents
from unrolled.core.tree import map_tree
from unrolled.kernels.fft_conv.online import Filter

__all__ = ["LongConv", "LongConvConfig"]

# From so many taps on, sums that are added ahead are faster than direct ones (64 channels, one row, one thread of an
# Intel Xeon with AMX).
_PAYS = 1024


class LongConvConfig(CellConfig):
    """Options of the long convolution."""

    name: Literal["long_conv"] = "long_conv"
    length: int = Field(default=256, ge=2, le=1 << 20, description="T, taps of each channel's filter")
    gates: bool = Field(
        default=True,
        description="a product of two maps of the input is convolved, and a third multiplies the result; else the "
        "input itself, and a GLU follows",
    )
    kernel: int = Field(default=3, ge=2, le=16, description="with gates: taps of the short convolution of the three")
    squash: float = Field(default=0.0, ge=0, description="each tap is moved towards zero by so much, at most to it")
    smooth: int = Field(
        default=0, ge=0, le=1024, description="each tap becomes the mean of it and so many on each side"
    )
    init: Literal["geometric", "random"] = Field(
        default="geometric",
        description="filters at the start: normal and decaying by a rate of each channel, or normal and small",
    )
    rate: float = Field(default=1.0, gt=0, description="factor on the learning rate of the filters")
    online: Literal["auto", "direct", "epoched", "quasilinear"] = Field(
        default="auto",
        description="how single steps are summed, and what the state holds for it; outputs are the same (auto: "
        f"direct, from {_PAYS} taps on quasilinear)",
    )

    def way(self) -> str:
        """How single steps are summed."""
        return self.online if self.online != "auto" else "direct" if self.length < _PAYS else "quasilinear"


class DirectState(NamedTuple):
    """inputs: (batch, T - 1, channels), the last inputs of the filters, the newest last."""

    inputs: Tensor


class GatedDirectState(NamedTuple):
    """The same, and conv: (batch, kernel - 1, 3 width), the last inputs of the short convolution."""

    inputs: Tensor
    conv: Tensor


class OnlineState(NamedTuple):
    """See :class:`unrolled.cells.parts.streamed.Parts`."""

    inputs: Tensor
    recent: Tensor
    future: Tensor
    count: Tensor


class GatedOnlineState(NamedTuple):
    """The same, and conv: (batch, kernel - 1, 3 width), the last inputs of the short convolution."""

    inputs: Tensor
    recent: Tensor
    future: Tensor
    count: Tensor
    conv: Tensor


class LongConv(MixerCell):
    r"""Long convolution with a free filter for each channel (Fu, Epstein, Nguyen et al. 2023, arXiv:2302.06646).

    .. math::
        \bar K &= \mathrm{sign}(M) \max(|M| - \lambda, 0), \quad M_l = \tfrac{1}{2p+1} \textstyle\sum_{|i| \le p}
        K_{l+i} \\
        y_t &= \textstyle\sum_{l < T} \bar K_l \odot u_{t-l} + D \odot u_t \\
        \text{without gates: } u &= x, \quad h = \mathrm{GLU}(W \mathrm{GELU}(y) + b) \\
        \text{with gates: } (q, k, v) &= c * W_1 x, \quad u = k \odot v, \quad h = W_2 (q \odot y) + b

    Without gates it is the paper's layer, which takes the place of S4's in its block; with them the paper's layer for
    language, in which the filter takes the place of H3's state space, here with one short convolution c over all three
    (as in Hyena of order 2, Poli et al. 2023). λ is ``squash``, p ``smooth``; both are 0 unless asked for: what is
    squashed to zero has no gradient. Starts: geometric, K_l = 0.02 ε exp(-(l/T) (N/2)^(c/(N-1))) for channel c of N,
    or random, 0.002 ε, with normal ε; D normal; maps as ``torch.nn.Linear``. No weight decay on the filters.
    Deviations: no dropout of taps; text without an end, which filters of T taps allow.

    A window is a convolution by transforms. Single steps go by ``online``: the whole sum (T multiply-adds), or past
    inputs are added ahead (FutureFill): O(sqrt(T log T)) a step, or O(log² T) beside a direct sum over the open block
    of some 2 sqrt(T). Then the state holds 2T inputs and sums (epoched: T and a block), the open block, and a count.

    Parameters: without gates I(T + 1) + 2N(I + 1); with them 3N(I + kernel + 1) + N(T + 1) + N(N + 1).
    """

    Config = LongConvConfig
    State = GatedDirectState
    EXAMPLES = (
        LongConvConfig(length=5),
        LongConvConfig(length=6, gates=False, squash=0.001, smooth=1),
        LongConvConfig(length=7, online="quasilinear", init="random"),
        LongConvConfig(length=3, gates=False, online="quasilinear"),
        LongConvConfig(length=5, gates=False, online="epoched", rate=0.5),
    )
    EQUATION = "y = W2(q * (K conv (k*v) + d*k*v))"
    operation = "fft_conv"

    def __init__(self, in_width: int, width: int, config: LongConvConfig):
        super().__init__(in_width, width, config)
        channels = width if config.gates else in_width
        self.way: Way = WAYS[config.way()](config.length)
        self.taps = nn.Parameter(torch.empty(channels, config.length))
        self.skip = nn.Parameter(torch.empty(channels))
        if config.gates:
            self.entry = nn.Linear(in_width, 3 * width, bias=False)
            self.conv = ShortConv(3 * width, config.kernel)
        self.out = nn.Linear(channels, width if config.gates else 2 * width)
        self.inner_sites = {"hidden": channels}
        self.parameter_rules = {"taps": ParameterRule(decay=False, rate=config.rate, drawn=False)}
        if config.way() != "direct":
            self.no_graph = (
                "its filters add to more outputs to come at some steps than at others; with online = direct, which "
                "makes the same outputs of the same weights, it is one"
            )
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        channels, length = self.taps.shape
        self.taps.normal_()
        if self.config.init == "geometric":
            rates = max(1.0, channels / 2) ** (torch.arange(channels) / max(1, channels - 1))
            self.taps *= 0.02 * torch.exp(-rates.unsqueeze(1) * torch.arange(length) / length).to(self.taps)
        else:
            self.taps *= 0.002
        self.skip.normal_()
        for part in (*((self.entry, self.conv) if self.config.gates else ()), self.out):
            part.reset_parameters()

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """Zeros, and no inputs."""
        parts = self.way.initial(batch, self.taps.shape[0], device, dtype)
        return self._state(parts, self.conv.initial(batch, device, dtype) if self.config.gates else None)

    @staticmethod
    def _state(parts: Parts, conv: Tensor | None) -> Any:
        direct, rest = parts.count is None, () if conv is None else (conv,)
        kind = (DirectState, OnlineState, GatedDirectState, GatedOnlineState)[2 * len(rest) + (not direct)]
        return kind(*(part for part in parts if part is not None), *rest)

    def filters(self) -> Filter:
        """The filters as they act."""
        taps, config = self.taps, self.config
        if config.smooth:
            # beyond the ends there are zeros
            taps = avg_pool1d(taps, 2 * config.smooth + 1, 1, config.smooth)
        if config.squash:
            taps = torch.sign(taps) * torch.relu(taps.abs() - config.squash)
        return Filter(taps, plain=self.wish == "reference")

    def settled(self) -> MixerCell:
        """The filters and their spectra are made once, when they are first asked for."""
        made: Any = super().settled()
        made.filters = functools.cache(torch.no_grad()(self.filters))
        return made

    def convolve(self, u: Tensor, state: Parts, reset: Tensor | None) -> tuple[Tensor, Parts]:
        """The filters' outputs over a window u (batch, time, channels), and the state after it."""
        own, way, (batch, time) = self.filters(), self.way, u.shape[:2]
        if time == 1:
            if reset is not None:
                state = map_tree(lambda part: part.masked_fill(reset.view(-1, *[1] * (part.dim() - 1)), 0), state)
            return way.step(own, u, state)
        if reset is None or not bool(reset.any()):
            y = way.outputs(own, u, state, self.wish, self.name)
            return y, way.after(own, u, state, [time] * batch)
        steps = torch.arange(time, device=u.device)
        lengths = (time - torch.where(reset, steps, 0).amax(1)).tolist()

        def outputs(u: Tensor, start: Parts) -> Tensor:
            return way.outputs(own, u, start, self.wish, self.name)

        def final(u: Tensor, start: Parts) -> Parts:
            return way.after(own, u, start, lengths)

        return by_documents(outputs, final, u, state, reset)

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        """One window of the class's equations."""
        parts = Parts(**{name: part for name, part in state._asdict().items() if name != "conv"})
        if not self.config.gates:
            y, parts = self.convolve(x, parts, given.reset)
            hidden = gelu(y + self.skip * x)
            h = glu(self.linear("out.weight", given.drop("hidden", hidden), "out.bias"), -1)
            return h, self._state(parts, None)
        entry = self.linear("entry.weight", x)
        three, conv = self.conv(entry, state.conv, given.reset, self.wish_for("causal_conv"), self.name)
        q, k, v = three.chunk(3, -1)
        u = k * v
        y, parts = self.convolve(u, parts, given.reset)
        hidden = q * (y + self.skip * u)
        if given.show is not None:
            given.show("hidden", hidden)
        return self.linear("out.weight", given.drop("hidden", hidden), "out.bias"), self._state(parts, conv)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """See the class."""
        if not config.gates:
            return in_width * (config.length + 1) + 2 * width * (in_width + 1)
        short = ShortConv.num_params(3 * width, config.kernel)
        return 3 * width * in_width + short + width * (config.length + 1) + width * (width + 1)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """4NI without gates, 6NI + 2N² with them; the filters have no matrices."""
        return 6 * width * in_width + 2 * width * width if config.gates else 4 * width * in_width
