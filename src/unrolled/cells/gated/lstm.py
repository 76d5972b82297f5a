"""Long short-term memory."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from unrolled.cells.base import CellConfig, StepCell, Tap, Weights
from unrolled.cells.gated.lstm_gates import lstm_gates
from unrolled.cells.init import Init, fill_matrix, fill_vectors, truncated_deviation, truncated_normal
from unrolled.cells.torch_form import TorchForm, bias_names
from unrolled.core.errors import UsageError
from unrolled.kernels.cell_loop.fused import FusedForm

__all__ = ["LSTM", "LSTMConfig", "LSTMState"]


class LSTMConfig(CellConfig):
    """Options of the LSTM."""

    name: Literal["lstm"] = "lstm"
    projection: int | None = Field(
        default=None, ge=1, le=1 << 20, description="width of the recurrent projection of h (none if absent)"
    )
    layer_norm: bool = Field(default=False, description="normalise W_x x, W_h h and c over the layer (Ba et al. 2016)")
    coupled: bool = Field(
        default=False, description="use 1 - f as input gate: three gates' weights (Greff et al. 2017)"
    )
    cap_input_gate: bool = Field(default=False, description="use min(1 - f, i) as input gate (Mogrifier LSTM)")
    bias: Literal["one", "two"] = Field(default="one", description="one bias vector, or two as in torch.nn.LSTM")
    forget_bias: float = Field(default=1.0, ge=-1e4, le=1e4, description="added to the initial bias of the forget gate")
    bias_init: Literal["zero", "uniform"] = Field(
        default="zero",
        description="biases start at zero (with a truncated init: so drawn, fan_in being the width), or "
        "all uniform in +-1/sqrt(width) as in torch.nn.LSTM, whose forget_bias is 0",
    )
    init: Init = Field(default="uniform", description="initialisation of the matrices")

    @model_validator(mode="after")
    def _one_input_gate(self) -> "LSTMConfig":
        if self.coupled and self.cap_input_gate:
            raise UsageError("an LSTM with coupled gates has no input gate to cap; set coupled or cap_input_gate.")
        return self


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
    h = σ(o) ⊙ tanh(LN(c)). ``cap_input_gate``: min(1 - σ(f), σ(i)) in place of σ(i), which keeps c in [-1, 1] (Melis
    et al. 2020). ``coupled``: 1 - σ(f) in place of σ(i) (CIFG, Greff et al. 2017). Gate order i, f, g, o as in torch;
    f, g, o where coupled. Parameters 4(NI + N² + N); 4N more with two biases; three quarters of that where coupled.
    """

    Config = LSTMConfig
    State = LSTMState
    EXAMPLES = (
        LSTMConfig(),
        LSTMConfig(bias="two", init="orthogonal"),
        LSTMConfig(projection=3),
        LSTMConfig(layer_norm=True),
        LSTMConfig(cap_input_gate=True, init="truncated_normal"),
        LSTMConfig(coupled=True),
        LSTMConfig(projection=3, layer_norm=True, cap_input_gate=True),
    )
    EQUATION = "c = f*c + i*g; h = o*tanh(c)"
    recurrent_weights = ("weight_hh",)

    def __init__(self, in_width: int, width: int, config: LSTMConfig):
        super().__init__(in_width, width, config)
        self.blocks = 3 if config.coupled else 4
        rows = self.blocks * width
        self.weight_ih = nn.Parameter(torch.empty(rows, in_width))
        self.weight_hh = nn.Parameter(torch.empty(rows, self.out_width))
        for name in bias_names(config.bias):
            self.register_parameter(name, nn.Parameter(torch.empty(rows)))
        if config.projection:
            self.weight_hr = nn.Parameter(torch.empty(config.projection, width))
        if config.layer_norm:
            for site, size in (("x", rows), ("h", rows), ("c", width)):
                self.register_parameter(f"gain_{site}", nn.Parameter(torch.ones(size)))
            self.shift_c = nn.Parameter(torch.zeros(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew; biases as ``bias_init`` says, the forget gate's raised by ``forget_bias``."""
        config, width = self.config, self.width
        fill_matrix(self.weight_ih, config.init, width, self.blocks, recurrent=False)
        fill_matrix(self.weight_hh, config.init, width, self.blocks)
        if config.projection:
            fill_matrix(self.weight_hr, config.init, width)
        names = bias_names(config.bias)
        fill_vectors(self.get_parameter(name) for name in names)
        bias = self.get_parameter(names[0])
        if config.bias_init == "uniform":
            for name in names:
                nn.init.uniform_(self.get_parameter(name), -(width**-0.5), width**-0.5)
        elif (deviation := truncated_deviation(config.init, width)) is not None and not bias.is_meta:
            truncated_normal(bias, deviation)
        with torch.no_grad():
            bias[-3 * width : -2 * width] += config.forget_bias

    def project(self, x: Tensor, w: Weights) -> Tensor:
        """W_x x + b, (..., 4N)."""
        bias = w["bias"] if self.config.bias == "one" else w["bias_ih"] + w["bias_hh"]
        if self.config.layer_norm:
            pre = w.linear("weight_ih", x)
            return layer_norm(pre, pre.shape[-1:], w["gain_x"], bias)
        return w.linear("weight_ih", x, bias)

    def step(self, pre: Tensor, state: LSTMState, w: Weights, tap: Tap) -> tuple[Tensor, LSTMState]:
        """One step of the class's equations."""
        if self.config.layer_norm:
            recurrent = w.linear("weight_hh", state.h)
            gates = pre + layer_norm(recurrent, recurrent.shape[-1:], w["gain_h"])
        else:
            gates = w.linear("weight_hh", state.h, pre)
        seen = lstm_gates(gates, state.c, self.config.coupled, self.config.cap_input_gate)
        c = seen["c"]
        for name, value in seen.items():
            tap(name, value)
        normed = c
        if self.config.layer_norm:
            normed = layer_norm(c, c.shape[-1:], w["gain_c"], w["shift_c"])
            tap("c_norm", normed)
        h = seen["o"] * torch.tanh(normed)
        if self.config.projection:
            tap("h_wide", h)
            h = w.linear("weight_hr", h)
        tap("h", h)
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
        if self.config.cap_input_gate or self.config.coupled:
            return "torch's LSTM has neither capped nor coupled input gates"
        names = ("weight_ih", "weight_hh", *bias_names(self.config.bias, padded=True))
        return TorchForm("lstm", (*names, "weight_hr") if self.config.projection else names, 4 * self.width)

    def fused_form(self) -> FusedForm | str:
        """How the fused backend computes this cell, or why it cannot."""
        if self.config.layer_norm or self.config.projection:
            return "the fused form has neither layer norm nor projection"
        return FusedForm("weight_hh", None, self.config.coupled, self.config.cap_input_gate)

    @classmethod
    def output_width(cls, config: Any, width: int) -> int:
        """The projection's width, if there is one."""
        return config.projection or width

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """G(NI + NP + N) with G gates and P the width of h, + GN for a second bias, + PN for the projection,
        + (2G + 2)N for layer norm."""
        out, gates = config.projection or width, 3 if config.coupled else 4
        count = gates * width * (in_width + out + len(bias_names(config.bias)))
        norm = (2 * gates + 2) * width if config.layer_norm else 0
        return count + (out * width if config.projection else 0) + norm

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2GN(I + P), + 2PN with a projection."""
        out, gates = config.projection or width, 3 if config.coupled else 4
        return 2 * gates * width * (in_width + out) + (2 * out * width if config.projection else 0)
