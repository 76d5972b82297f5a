"""Multiplicative LSTM."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, StepCell, Tap, Weights
from unrolled.cells.init import Init, fill_matrix, fill_vectors
from unrolled.cells.lstm import LSTMState
from unrolled.cells.lstm_gates import lstm_gates
from unrolled.core.errors import UsageError
from unrolled.kernels.cell_loop.fused import FusedForm

__all__ = ["MLSTM", "MLSTMConfig"]

_MATRICES = ("weight_x", "weight_mx", "weight_mh", "weight_m")


class MLSTMConfig(CellConfig):
    """Options of the multiplicative LSTM."""

    name: Literal["mlstm"] = "mlstm"
    factor: int | None = Field(
        default=None, ge=1, description="size F of the intermediate state m (absent: the cell's width)"
    )
    weight_norm: bool = Field(default=False, description="W = g V / |V| per output row on the four matrices")
    form: Literal["standard", "early"] = Field(
        default="standard",
        description="standard: h = o*tanh(c) with a tanh candidate; early: linear candidate, h = tanh(o*c + b)",
    )
    coupled: bool = Field(
        default=False, description="use 1 - f as input gate: three gates' weights (Greff et al. 2017)"
    )
    factor_bias: float | None = Field(
        default=None, description="initial value of a bias on W_mx x (absent: no bias); 1 makes m start near W_mh h"
    )
    forget_bias: float = Field(
        default=1.0, description="initial bias of the forget gate (3 in the large published system)"
    )
    init: Init = Field(default="uniform", description="initialisation of the matrices")

    @model_validator(mode="after")
    def _one_input_gate(self) -> "MLSTMConfig":
        if self.coupled and self.form == "early":
            raise UsageError("the early form of the mLSTM has an input gate of its own; leave out coupled.")
        return self


class MLSTM(StepCell):
    r"""Multiplicative LSTM (Krause, Lu, Murray and Renals 2016): one m replaces h in all four gates.

    .. math::
        m_t &= (W_{mx} x_t) \odot (W_{mh} h_{t-1}) \\
        (i, f, g, o) &= W_x x_t + W_m m_t + b \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= \sigma(o) \odot \tanh(c_t)

    Two published forms. ``standard`` is the above (the authors' later code and the sentiment-neuron model).
    ``early`` (the first, MATLAB version): linear candidate g without bias, h_t = tanh(σ(o) ⊙ c_t + b_h); its ``bias``
    holds b_i, b_f, b_h, b_o in the gates' order. Weight normalisation: each of the four matrices is g V/norm(V) with
    the norm per output row, g starting at the norms so that the start is unchanged. Gate order i, f, g, o (the
    published code has i, f, o, g).

    Two options that no paper has: ``coupled`` gates (i = 1 - f, blocks f, g, o) and a bias on W_mx x
    (``factor_bias``); both train faster in the first minutes (docs/log.md).

    Parameters F(I + N) + 4(NI + NF + N), + 2F + 8N with weight normalisation, + F for the factor's bias; 3 for 4
    where coupled.
    """

    Config = MLSTMConfig
    State = LSTMState
    EXAMPLES = (
        MLSTMConfig(),
        MLSTMConfig(factor=3, init="orthogonal"),
        MLSTMConfig(weight_norm=True),
        MLSTMConfig(form="early"),
        MLSTMConfig(form="early", weight_norm=True, factor=7),
        MLSTMConfig(coupled=True, factor_bias=1.0, init="orthogonal"),
        MLSTMConfig(coupled=True, weight_norm=True, factor=3),
    )
    EQUATION = "m = (Wmx x)*(Wmh h); an LSTM step on (x, m)"
    recurrent_weights = ("weight_mh", "weight_m")

    def __init__(self, in_width: int, width: int, config: MLSTMConfig):
        super().__init__(in_width, width, config)
        factor = config.factor or width
        if config.weight_norm:  # a mask on V would change the norm that V is divided by
            self.recurrent_weights = ()
        self.blocks = 3 if config.coupled else 4
        shapes = {
            "weight_x": (self.blocks * width, in_width),
            "weight_mx": (factor, in_width),
            "weight_mh": (factor, width),
            "weight_m": (self.blocks * width, factor),
        }
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
            if config.weight_norm:
                self.register_parameter(f"{name}_gain", nn.Parameter(torch.empty(shape[0])))
        self.bias = nn.Parameter(torch.empty(self.blocks * width))
        if config.factor_bias is not None:
            self.bias_mx = nn.Parameter(torch.empty(factor))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew; biases zero but for the forget gate's; gains at the row norms."""
        init, width = self.config.init, self.width
        for name in _MATRICES:
            weight = self.get_parameter(name)
            blocks = self.blocks if name in ("weight_x", "weight_m") else 1
            fill_matrix(weight, init, width, blocks, recurrent=not name.endswith("x"))
            if self.config.weight_norm:
                with torch.no_grad():
                    self.get_parameter(f"{name}_gain").copy_(weight.norm(dim=1))
        fill_vectors([self.bias])
        with torch.no_grad():
            self.bias[-3 * width : -2 * width] = self.config.forget_bias
            if self.config.factor_bias is not None:
                self.bias_mx.fill_(self.config.factor_bias)

    def effective_weights(self) -> Mapping[str, Tensor]:
        """The parameters, with the normalised matrices in place of V and g."""
        named: dict[str, Tensor] = dict(self.named_parameters())
        if self.config.weight_norm:
            for name in _MATRICES:
                gain = named.pop(f"{name}_gain")
                named[name] = named[name] * (gain / named[name].norm(dim=1)).unsqueeze(1)
        return named

    def project(self, x: Tensor, w: Weights) -> tuple[Tensor, Tensor]:
        """W_x x + b (..., 4N) and W_mx x (..., F)."""
        bias = w["bias"]
        if self.config.form == "early":  # the third block is the output's bias, not the candidate's
            n = self.width
            bias = torch.cat([bias[: 2 * n], torch.zeros_like(bias[:n]), bias[3 * n :]])
        factor = w.linear("weight_mx", x)
        if self.config.factor_bias is not None:
            factor = factor + w["bias_mx"]
        return w.linear("weight_x", x) + bias, factor

    def step(self, pre: tuple[Tensor, Tensor], state: LSTMState, w: Weights, tap: Tap) -> tuple[Tensor, LSTMState]:
        """One step of the class's equations."""
        m = pre[1] * w.linear("weight_mh", state.h)
        tap("m", m)
        gates = w.linear("weight_m", m, pre[0])
        if self.config.form == "early":
            i, f, g, o = gates.chunk(4, -1)
            i, f, o = torch.sigmoid(i), torch.sigmoid(f), torch.sigmoid(o)
            c = f * state.c + i * g
            h = torch.tanh(o * c + w["bias"][2 * self.width : 3 * self.width])
            seen = {"i": i, "f": f, "g": g, "o": o, "c": c}
        else:
            seen = lstm_gates(gates, state.c, self.config.coupled)
            c = seen["c"]
            h = seen["o"] * torch.tanh(c)
        for name, value in seen.items():
            tap(name, value)
        tap("h", h)
        return h, LSTMState(h, c)

    def fused_form(self) -> FusedForm | str:
        """How the fused backend computes this cell, or why it cannot."""
        if self.config.form == "early":
            return "the fused form has only the standard output form"
        return FusedForm("weight_m", "weight_mh", self.config.coupled, False)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """F(I + N) + G(NI + NF + N) with G gates, + 2F + 2GN with weight normalisation, + F for the factor's bias."""
        factor, gates = config.factor or width, 3 if config.coupled else 4
        count = factor * (in_width + width) + gates * width * (in_width + factor + 1)
        count += 0 if config.factor_bias is None else factor
        return count + (2 * factor + 2 * gates * width if config.weight_norm else 0)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2F(I + N) + 2GN(I + F)."""
        factor, gates = config.factor or width, 3 if config.coupled else 4
        return 2 * factor * (in_width + width) + 2 * gates * width * (in_width + factor)
