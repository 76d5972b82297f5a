"""Long short-term memory."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from unrolled.cells.base import CellConfig, StepCell, Tap, Weights
from unrolled.cells.init import Init, fill_matrix, fill_vectors, truncated_normal
from unrolled.cells.torch_form import TorchForm, bias_names

__all__ = ["LSTM", "LSTMConfig", "LSTMState"]


class LSTMConfig(CellConfig):
    """Options of the LSTM."""

    name: Literal["lstm"] = "lstm"
    projection: int | None = Field(
        default=None, ge=1, description="width of the recurrent projection of h (none if absent)"
    )
    layer_norm: bool = Field(default=False, description="normalise W_x x, W_h h and c over the layer (Ba et al. 2016)")
    cap_input_gate: bool = Field(default=False, description="use min(1 - f, i) as input gate (Mogrifier LSTM)")
    bias: Literal["one", "two"] = Field(default="one", description="one bias vector, or two as in torch.nn.LSTM")
    forget_bias: float = Field(default=1.0, description="initial bias of the forget gate")
    init: Init = Field(default="uniform", description="initialisation of the matrices")


class LSTMState(NamedTuple):
    """h: (batch, width, or projection width). c: (batch, width)."""

    h: Tensor
    c: Tensor


class LSTM(StepCell):
    r"""LSTM with forget gate (Hochreiter and Schmidhuber 1997; Gers et al. 2000), without peepholes.

    .. math::
        (i, f, g, o) &= W_x x_t + W_h h_{t-1} + b \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= \sigma(o) \odot \tanh(c_t)

    Options: ``projection`` (Sak et al. 2014): h_t = W_r (σ(o) ⊙ tanh c_t), as ``torch.nn.LSTM(proj_size=...)``.
    ``layer_norm`` (Ba et al. 2016, eq. 20-22): LN(W_x x) + LN(W_h h) + b, each over all four gates, and
    h = σ(o) ⊙ tanh(LN(c)). ``cap_input_gate``: min(1 - σ(f), σ(i)) in place of σ(i), which keeps |c| <= 1 (Melis et
    al. 2020). Gate order i, f, g, o as in torch. Parameters 4(NI + N² + N); 4N more with two biases.
    """

    Config = LSTMConfig
    State = LSTMState
    EXAMPLES = (
        LSTMConfig(),
        LSTMConfig(bias="two", init="orthogonal"),
        LSTMConfig(projection=3),
        LSTMConfig(layer_norm=True),
        LSTMConfig(cap_input_gate=True, init="truncated_normal"),
        LSTMConfig(projection=3, layer_norm=True, cap_input_gate=True),
    )
    EQUATION = "c = f*c + i*g; h = o*tanh(c)"
    recurrent_weights = ("weight_hh",)

    def __init__(self, in_width: int, width: int, config: LSTMConfig):
        super().__init__(in_width, width, config)
        self.weight_ih = nn.Parameter(torch.empty(4 * width, in_width))
        self.weight_hh = nn.Parameter(torch.empty(4 * width, self.out_width))
        for name in bias_names(config.bias):
            self.register_parameter(name, nn.Parameter(torch.empty(4 * width)))
        if config.projection:
            self.weight_hr = nn.Parameter(torch.empty(config.projection, width))
        if config.layer_norm:
            for site, size in (("x", 4 * width), ("h", 4 * width), ("c", width)):
                self.register_parameter(f"gain_{site}", nn.Parameter(torch.ones(size)))
            self.shift_c = nn.Parameter(torch.zeros(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew; biases zero but for the forget gate's."""
        config, width = self.config, self.width
        fill_matrix(self.weight_ih, config.init, width, 4, recurrent=False)
        fill_matrix(self.weight_hh, config.init, width, 4)
        if config.projection:
            fill_matrix(self.weight_hr, config.init, width)
        names = bias_names(config.bias)
        fill_vectors(self.get_parameter(name) for name in names)
        bias = self.get_parameter(names[0])
        if config.init == "truncated_normal" and not bias.is_meta:
            truncated_normal(bias, width**-0.5)
        with torch.no_grad():
            bias[width : 2 * width] += config.forget_bias

    def project(self, x: Tensor, w: Weights) -> Tensor:
        """W_x x + b, (..., 4N)."""
        bias = w["bias"] if self.config.bias == "one" else w["bias_ih"] + w["bias_hh"]
        pre = w.linear("weight_ih", x)
        if self.config.layer_norm:
            return layer_norm(pre, pre.shape[-1:], w["gain_x"], bias)
        return pre + bias

    def step(self, pre: Tensor, state: LSTMState, w: Weights, tap: Tap) -> tuple[Tensor, LSTMState]:
        """One step of the class's equations."""
        if self.config.layer_norm:
            recurrent = w.linear("weight_hh", state.h)
            gates = pre + layer_norm(recurrent, recurrent.shape[-1:], w["gain_h"])
        else:
            gates = w.linear("weight_hh", state.h, pre)
        i, f, g, o = gates.chunk(4, -1)
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        if self.config.cap_input_gate:
            i = torch.minimum(1 - f, i)
        c = f * state.c + i * g
        normed = layer_norm(c, c.shape[-1:], w["gain_c"], w["shift_c"]) if self.config.layer_norm else c
        h = o * torch.tanh(normed)
        if self.config.projection:
            h = w.linear("weight_hr", h)
        for name, value in (("i", i), ("f", f), ("g", g), ("o", o), ("c", c), ("h", h)):
            tap(name, value)
        return h, LSTMState(h, c)

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> LSTMState:
        """Zeros."""
        return LSTMState(
            torch.zeros(batch, self.out_width, device=device, dtype=dtype),
            torch.zeros(batch, self.width, device=device, dtype=dtype),
        )

    def torch_form(self) -> TorchForm | str:
        """How torch's own kernel computes this cell, or why it cannot."""
        if self.config.layer_norm:
            return "torch's LSTM has no layer norm"
        if self.config.cap_input_gate:
            return "torch's LSTM has no capped input gate"
        names = ("weight_ih", "weight_hh", *bias_names(self.config.bias, padded=True))
        return TorchForm("lstm", (*names, "weight_hr") if self.config.projection else names, 4 * self.width)

    @classmethod
    def output_width(cls, config: Any, width: int) -> int:
        """The projection's width, if there is one."""
        return config.projection or width

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """4(NI + NP + N) with P the width of h, + 4N for a second bias, + PN for the projection, + 10N for LN."""
        out = config.projection or width
        count = 4 * width * (in_width + out + len(bias_names(config.bias)))
        return count + (out * width if config.projection else 0) + (10 * width if config.layer_norm else 0)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """8N(I + P), + 2PN with a projection."""
        out = config.projection or width
        return 8 * width * (in_width + out) + (2 * out * width if config.projection else 0)
