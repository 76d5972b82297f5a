"""An LSTM whose weights are scaled, row by row and step by step, by a smaller LSTM beside it."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from unrolled.cells.base import CellConfig, StepCell, Tap, Weights
from unrolled.cells.gated.lstm_gates import lstm_gates

__all__ = ["HyperLSTM", "HyperLSTMConfig", "HyperLSTMState"]

_EPSILON = 1e-3
_GATES = 4
# for each gate a scale of the input's product, one of the state's, and a bias
_SCALES, _PARTS = 2 * _GATES, 3 * _GATES


class HyperLSTMConfig(CellConfig):
    """Options of the HyperLSTM."""

    name: Literal["hyperlstm"] = "hyperlstm"
    hyper: int = Field(default=128, ge=1, le=1 << 20, description="width of the smaller LSTM")
    embedding: int = Field(
        default=16, ge=1, le=1 << 20, description="numbers of which each gate's scales and bias are made (paper: 4, 16)"
    )
    layer_norm: bool = Field(default=True, description="normalise each gate and c, in both LSTMs")
    forget_bias: float = Field(
        default=1.0, ge=-1e4, le=1e4, description="added to the forget gates' pre-activations, after the norm"
    )


class HyperLSTMState(NamedTuple):
    """h, c: (batch, width). hyper_h, hyper_c: (batch, hyper), of the smaller LSTM."""

    h: Tensor
    c: Tensor
    hyper_h: Tensor
    hyper_c: Tensor


class HyperLSTM(StepCell):
    r"""HyperLSTM (Ha, Dai and Le 2017): a smaller LSTM, which sees x and h, scales the larger one's products.

    With ĥ_t the output of an LSTM of width Ĥ on [x_t; h_{t-1}; ĥ_{t-1}], for each gate g of i, f, g, o and each source
    s of x, h:

    .. math::
        d^g_s &= A^g_s (V^g_s \hat h_t + v^g_s), \quad d^g_b = A^g_b V^g_b \hat h_t \\
        g &= \mathrm{LN}(d^g_x \odot W^g_x x_t + d^g_h \odot W^g_h h_{t-1} + d^g_b + b^g) \\
        c_t &= \sigma(f + 1) \odot c_{t-1} + \sigma(i) \odot \tanh(g), \quad
            h_t = \sigma(o) \odot \tanh(\mathrm{LN}(c_t))

    LN normalises each gate by itself, with a gain and a shift and 1e-3 beside the variance; the smaller LSTM is
    normalised alike. ``weight_e`` (12E, Ĥ) holds the V, ``weight_d`` (12, N, E) the A: first those of x, then of h,
    then of the bias, gate by gate. As in the authors' code (supercell.py, whose order of gates is i, j, f, o) v starts
    at 1, V at 0 and A at 0.1/E for scales, so that each starts at 0.1; V at N(0, 0.01²) and A at 0 for biases;
    recurrent matrices orthogonal gate by gate, those from the input uniform by Glorot; the smaller LSTM's columns of h
    are drawn with those of x.

    Deviation: the dropout of tanh(g) (keep 0.9) is not here. Parameters
    4N(I + N) + 14N + 4Ĥ(I + N + Ĥ) + 14Ĥ + 12(ĤE + EN) + 8E; without layer norm 10N and 10Ĥ fewer.
    """

    Config = HyperLSTMConfig
    State = HyperLSTMState
    EXAMPLES = (
        HyperLSTMConfig(hyper=3, embedding=2),
        HyperLSTMConfig(hyper=6, embedding=3, layer_norm=False, forget_bias=0.5),
    )
    EQUATION = "gate = LN(d_x*Wx x + d_h*Wh h + d_b + b), d made by a smaller LSTM; c = f*c + i*g"
    recurrent_weights = ("weight_hh", "hyper_hh")

    def __init__(self, in_width: int, width: int, config: HyperLSTMConfig):
        super().__init__(in_width, width, config)
        hyper, size = config.hyper, config.embedding
        self.weight_ih = nn.Parameter(torch.empty(_GATES * width, in_width))
        self.weight_hh = nn.Parameter(torch.empty(_GATES * width, width))
        self.bias = nn.Parameter(torch.empty(_GATES * width))
        self.hyper_ih = nn.Parameter(torch.empty(_GATES * hyper, in_width))
        self.hyper_hh = nn.Parameter(torch.empty(_GATES * hyper, width + hyper))
        self.hyper_bias = nn.Parameter(torch.empty(_GATES * hyper))
        self.weight_e = nn.Parameter(torch.empty(_PARTS * size, hyper))
        self.bias_e = nn.Parameter(torch.empty(_SCALES * size))
        self.weight_d = nn.Parameter(torch.empty(_PARTS, width, size))
        if config.layer_norm:
            for prefix, n in (("", width), ("hyper_", hyper)):
                for name, many in (("gain", _GATES * n), ("shift", _GATES * n), ("gain_c", n), ("shift_c", n)):
                    self.register_parameter(prefix + name, nn.Parameter(torch.empty(many)))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew, as the class says."""
        hyper, size, n = self.config.hyper, self.config.embedding, self.width
        for name, parameter in self.named_parameters():
            if "gain" in name or "bias" in name or "shift" in name:
                parameter.fill_(1.0 if "gain" in name or name == "bias_e" else 0.0)
        if self.bias.is_meta:  # counting parameters only
            return
        _glorot(self.weight_ih, self.in_width, _GATES * n)
        _glorot(self.hyper_ih, self.in_width + n, _GATES * hyper)
        _glorot(self.hyper_hh[:, :n], self.in_width + n, _GATES * hyper)
        for weight in (self.weight_hh, self.hyper_hh[:, n:]):
            for block in weight.chunk(_GATES):
                block.copy_(nn.init.orthogonal_(torch.empty_like(block)))
        self.weight_e[: _SCALES * size].zero_()
        self.weight_e[_SCALES * size :].normal_(std=0.01)
        self.weight_d[:_SCALES].fill_(0.1 / size)
        self.weight_d[_SCALES:].zero_()

    def project(self, x: Tensor, w: Weights) -> tuple[Tensor, Tensor]:
        """W_x x (..., 4N), and what goes from x into the smaller LSTM, (..., 4Ĥ)."""
        return w.linear("weight_ih", x), w.linear("hyper_ih", x, w["hyper_bias"])

    def step(
        self, pre: tuple[Tensor, Tensor], state: HyperLSTMState, w: Weights, tap: Tap
    ) -> tuple[Tensor, HyperLSTMState]:
        """One step of the class's equations."""
        n, scales = self.width, _SCALES * self.config.embedding
        from_x, into_hyper = pre
        gates = w.linear("hyper_hh", torch.cat([state.h, state.hyper_h], -1), into_hyper)
        hyper_h, seen = self._lstm(gates, state.hyper_c, w, "hyper_")
        hyper_c = seen["c"]
        e = w.linear("weight_e", hyper_h)
        d = w.linear("weight_d", torch.cat([e[..., :scales] + w["bias_e"], e[..., scales:]], -1))
        of_x, of_h, more = d[..., : 4 * n], d[..., 4 * n : 8 * n], d[..., 8 * n :]
        gates = of_x * from_x + of_h * w.linear("weight_hh", state.h) + more + w["bias"]
        h, seen = self._lstm(gates, state.c, w, "")
        for name, value in seen.items():
            tap(name, value)
        tap("hyper_h", hyper_h)
        tap("hyper_c", hyper_c)
        tap("h", h)
        return h, HyperLSTMState(h, seen["c"], hyper_h, hyper_c)

    def _lstm(self, gates: Tensor, c: Tensor, w: Weights, prefix: str) -> tuple[Tensor, dict[str, Tensor]]:
        """h, and gates and c by name, from what goes into the gates before their norms."""
        normed = self.config.layer_norm
        if normed:
            parts = [layer_norm(gate, gate.shape[-1:], eps=_EPSILON) for gate in gates.chunk(_GATES, -1)]
            gates = torch.cat(parts, -1) * w[f"{prefix}gain"] + w[f"{prefix}shift"]
        i, f, g, o = gates.chunk(_GATES, -1)
        seen = lstm_gates(torch.cat([i, f + self.config.forget_bias, g, o], -1), c)
        c = seen["c"]
        if normed:
            c = layer_norm(c, c.shape[-1:], w[f"{prefix}gain_c"], w[f"{prefix}shift_c"], _EPSILON)
            seen["c_norm"] = c
        return seen["o"] * torch.tanh(c), seen

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> HyperLSTMState:
        """Zeros."""
        widths = (self.width, self.width, self.config.hyper, self.config.hyper)
        return HyperLSTMState(*(torch.zeros(batch, n, device=device, dtype=dtype) for n in widths))

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """4N(I + N) + 14N + 4Ĥ(I + N + Ĥ) + 14Ĥ + 12(ĤE + EN) + 8E; 10N + 10Ĥ fewer without layer norm."""
        hyper, size = config.hyper, config.embedding
        vectors = (_GATES + (10 if config.layer_norm else 0)) * (width + hyper)
        matrices = _GATES * width * (in_width + width) + _GATES * hyper * (in_width + width + hyper)
        return matrices + vectors + _PARTS * size * (hyper + width) + _SCALES * size

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """8N(I + N) + 8Ĥ(I + N + Ĥ) + 24E(Ĥ + N)."""
        hyper, size = config.hyper, config.embedding
        large, small = _GATES * width * (in_width + width), _GATES * hyper * (in_width + width + hyper)
        return 2 * (large + small + _PARTS * size * (hyper + width))


def _glorot(weight: Tensor, fan_in: int, fan_out: int) -> None:
    """Uniform in ±sqrt(6/(fan_in + fan_out)) (Glorot and Bengio 2010), of the matrix that the weight is a part of."""
    bound = (6 / (fan_in + fan_out)) ** 0.5
    weight.uniform_(-bound, bound)
