"""TrellisNet."""

import functools
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, ParameterRule
from unrolled.cells.mixer import Given, MixerCell
from unrolled.core.errors import UsageError
from unrolled.kernels.causal_conv import cache_after, reach_of
from unrolled.kernels.causal_conv.reference import lagged
from unrolled.kernels.linear import linear
from unrolled.kernels.trellis import distinct, trellis
from unrolled.kernels.trellis.reference import levels

__all__ = ["TanhTrellisState", "TrellisConfig", "TrellisNet", "TrellisState"]

_MOST = 1 << 16
_DEVIATION = 0.01
_MATRICES = ("input_past", "input_now", "hidden_past", "hidden_now")


class TrellisConfig(CellConfig):
    """Options of the TrellisNet."""

    name: Literal["trellis"] = "trellis"
    levels: int = Field(default=8, ge=2, le=1024, description="levels, all with the same weights")
    hidden: int = Field(
        default=0, ge=0, le=1 << 20, description="units beside those of the width, which are the output"
    )
    dilations: tuple[int, ...] = Field(
        default=(1,), min_length=1, max_length=1024, description="steps between the taps, level by level, in a circle"
    )
    unit: Literal["lstm", "tanh"] = Field(default="lstm", description="gated as an LSTM, or tanh alone")
    weight_norm: bool = Field(default=True, description="W = g V / |V| for each output, of input and levels apart")
    carry: Literal["exact", "final"] = Field(
        default="exact",
        description="exact: each level's last inputs, so that a text in windows is the whole; final: the last level's "
        "last output stands before all levels (published), so that figures depend on where windows end",
    )
    aux_frequency: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="every so many levels the output is handed to the objective auxiliary (0: none)",
    )

    @model_validator(mode="after")
    def _short_enough(self) -> "TrellisConfig":
        if min(self.dilations) < 1:
            raise UsageError("the taps of a level are at least one step apart; give dilations from 1.")
        if sum(self.of_levels()) > _MOST:
            raise UsageError(
                f"these levels look {sum(self.of_levels())} steps back, and {_MOST} is the most; take fewer levels or "
                "smaller dilations."
            )
        if self.aux_frequency > self.levels:
            raise UsageError("no level is the aux_frequency-th; set aux_frequency to at most the number of levels.")
        return self

    def of_levels(self) -> tuple[int, ...]:
        """The dilation of each level."""
        return tuple(self.dilations[k % len(self.dilations)] for k in range(self.levels))


class TrellisState(NamedTuple):
    """levels_h, levels_c: (batch, steps, M), with M = width + hidden: what each level but the first read last, d steps
    each, level after level; with ``carry = "final"`` one step, the last level's. x: (batch, largest d, in_width), the
    last inputs; none with ``final``."""

    levels_h: Tensor
    levels_c: Tensor
    x: Tensor


class TanhTrellisState(NamedTuple):
    """See :class:`TrellisState`."""

    levels_h: Tensor
    x: Tensor


class TrellisNet(MixerCell):
    r"""TrellisNet (Bai, Kolter and Koltun 2018, arXiv:1810.06682): one gated convolution of two taps, applied again and
    again to its own output, with the input injected at every level.

    .. math::
        p^{(i+1)}_t &= W_x [x_{t-d}; x_t] + W_h [h^{(i)}_{t-d}; h^{(i)}_t] + b, \quad h^{(0)} = 0 \\
        c^{(i+1)}_t &= \sigma(p_f) \odot c^{(i)}_{t-d} + \sigma(p_i) \odot \tanh(p_g), \quad
        h^{(i+1)}_t = \sigma(p_o) \odot \tanh(c^{(i+1)}_t)

    ``unit = "tanh"``: h = tanh(p). Blocks in the order i, o, g, f. All levels share the weights, M = width + hidden
    units each; the last ``width`` of the last level are the output. The products of the input are made once for each
    dilation. With block-sparse weights it is an L-layer RNN or LSTM that sees M' steps: M' + L - 1 levels, all layers
    side by side, biases of layers above the first zero (the paper's Theorem 1).

    ``carry = "exact"``: before the first token there are zeros at every level; each level's last inputs are carried.
    ``"final"`` is the authors' code: zeros stand before x in each window, and before every level, d times over, the
    state in which the last level ended the window before; the output then depends on where windows end.

    Weights and biases start normal with deviation 0.01. Under weight norm each output's row of [past; now] is
    normalised, of input and levels apart. Weight drop masks the taps at t - d, before the norm, as the authors do.
    The site for dropout, ``levels``, masks both h that a level reads, the same at all levels. ``aux_frequency`` hands
    the outputs of every so many levels to the objective ``auxiliary``.

    Parameters 2G(I + M) + G with G = 4M gates (tanh: M), and 2G gains.
    """

    Config = TrellisConfig
    State = TrellisState
    EXAMPLES = (
        TrellisConfig(levels=4, hidden=2),
        TrellisConfig(levels=5, dilations=(1, 2, 4), weight_norm=False),
        TrellisConfig(levels=3, unit="tanh", dilations=(2, 1), aux_frequency=2),
    )
    EQUATION = "c_i = f*c_(i-1)(t-d) + i*g; h_i = o*tanh(c_i), levels i of one weight"
    operation = "trellis"
    recurrent_weights = ("input_past", "hidden_past")
    parameter_rules = dict.fromkeys(_MATRICES, ParameterRule(drawn=False))
    _settled: tuple[Tensor, Tensor] | None = None
    input_past: Tensor
    input_now: Tensor
    hidden_past: Tensor
    hidden_now: Tensor

    def __init__(self, in_width: int, width: int, config: TrellisConfig):
        super().__init__(in_width, width, config)
        self.units, self.gates = width + config.hidden, _gates(config, width)
        self.dilations = config.of_levels()
        for name in _MATRICES:
            columns = in_width if name.startswith("input") else self.units
            self.register_parameter(name, nn.Parameter(torch.empty(self.gates, columns)))
        self.bias = nn.Parameter(torch.empty(self.gates))
        if config.weight_norm:
            self.input_gain, self.hidden_gain = (nn.Parameter(torch.empty(self.gates)) for _ in range(2))
        self.inner_sites = {"levels": self.units}
        if config.aux_frequency:
            self.hands = ("auxiliary",)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        for name in (*_MATRICES, "bias"):
            self.get_parameter(name).normal_(0, _DEVIATION)
        if self.config.weight_norm:
            for kind in ("input", "hidden"):
                self.get_parameter(f"{kind}_gain").copy_(self._both(kind).norm(dim=1))

    def _both(self, kind: str) -> Tensor:
        """[past; now] as it is trained, (gates, 2 columns)."""
        return torch.cat([getattr(self, f"{kind}_past"), getattr(self, f"{kind}_now")], 1)

    def weights(self) -> tuple[Tensor, Tensor]:
        """Of the input (gates, 2I) and of the levels (gates, 2M), past before now, normalised where they are."""
        both = [self._both(kind) for kind in ("input", "hidden")]
        if self.config.weight_norm:
            gains = (self.input_gain, self.hidden_gain)
            both = [v * (g / v.norm(dim=1)).unsqueeze(1) for v, g in zip(both, gains, strict=True)]
        return both[0], both[1]

    def backends(self) -> list[str]:
        """Those that have the unit."""
        return [name for name in super().backends() if self.config.unit == "lstm" or name != "native"]

    def settled(self) -> MixerCell:
        """The weights are normalised once; each level is one product with the packed matrix of both taps."""
        made: Any = super().settled()
        made._settled = tuple(part.detach() for part in self.weights())
        return made

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """Zeros."""
        exact = self.config.carry == "exact"
        steps = sum(self.dilations[1:]) if exact else 1

        def zeros(time: int, width: int) -> Tensor:
            return torch.zeros(batch, time, width, device=device, dtype=dtype)

        x = zeros(max(self.dilations) if exact else 0, self.in_width)
        if self.config.unit == "tanh":
            return TanhTrellisState(zeros(steps, self.units), x)
        return TrellisState(zeros(steps, self.units), zeros(steps, self.units), x)

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        """One window of the class's equations."""
        exact, lstm = self.config.carry == "exact", self.config.unit == "lstm"
        of_input, of_levels = self.weights() if self._settled is None else self._settled
        cache = state.x if exact else x.new_zeros(x.shape[0], max(self.dilations), self.in_width)
        reach = None if given.reset is None else reach_of(given.reset, cache.shape[1])
        injected = [self._inject(x, cache, reach, d, of_input) for d in distinct(self.dilations)]
        held: list[Any] = [state.levels_h, state.levels_c] if lstm else [state.levels_h, None]
        if not exact:
            held = [None if part is None else part.expand(-1, sum(self.dilations), -1) for part in held]
        step = self.config.aux_frequency
        show = tuple(range(step - 1, self.config.levels, step)) if step else ()
        mask = given.inner.get("levels")
        if self._settled is not None and self.packed is not None:
            product = functools.partial(self._packed_product, of_levels)
            found = levels(injected, product, held[0], held[1], self.dilations, reach, mask, show)
        else:
            past, now = of_levels.chunk(2, 1)
            found = trellis(
                injected, past, now, held[0], held[1], self.dilations, given.reset, mask, show,
                self.compute.precision, self.wish, self.name,
            )  # fmt: skip
        h, c, held_h, held_c, shown = found
        if step:
            given.handed["auxiliary"] = shown[..., -self.width :]
        if not exact:
            held_h, held_c = h[:, -1:], None if c is None else c[:, -1:]
        after = cache_after(cache, x, reach) if exact else state.x
        last = TanhTrellisState(held_h, after) if held_c is None else TrellisState(held_h, held_c, after)
        return h[..., -self.width :], last

    def _inject(self, x: Tensor, cache: Tensor, reach: Tensor | None, d: int, weight: Tensor) -> Tensor:
        """W_x [x(t-d); x(t)] + b, (batch, time, gates), time first in memory."""
        old = next(lagged(x, 2, cache[:, cache.shape[1] - d :], reach, d))
        side = torch.cat([old.transpose(0, 1), x.transpose(0, 1)], -1)
        y = None if self._settled is None or self.packed is None else self.packed(side, weight, self.bias)
        if y is None:
            wish = "reference" if self.wish == "reference" else self.compute.wish("linear")
            y = linear(side, weight, self.bias, self.compute.precision, wish, self.name)
        return y.transpose(0, 1)

    def _packed_product(self, weight: Tensor, old: Tensor, now: Tensor) -> Tensor:
        assert self.packed is not None
        y = self.packed(torch.cat([old, now], -1), weight, None)
        assert y is not None, "a matrix of two dimensions is packed"
        return y

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """2G(I + M) + G, and 2G gains."""
        gates, units = _gates(config, width), width + config.hidden
        return gates * (2 * (in_width + units) + (3 if config.weight_norm else 1))

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """4GI for each dilation, 4GM for each level but the first, whose input is zero; with ``final`` for that too."""
        gates, units = _gates(config, width), width + config.hidden
        count = config.levels - (config.carry == "exact")
        return 4 * gates * (in_width * len(distinct(config.of_levels())) + units * count)


def _gates(config: TrellisConfig, width: int) -> int:
    return (4 if config.unit == "lstm" else 1) * (width + config.hidden)
