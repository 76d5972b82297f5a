"""Multiplicative LSTM."""

from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unrolled.cells.base import Tap, Weights
from unrolled.cells.gated.lstm import LSTMState
from unrolled.cells.gated.lstm_gates import lstm_gates
from unrolled.cells.multiplicative.second_order import MultiplicativeCell, MultiplicativeConfig
from unrolled.core.errors import UsageError
from unrolled.kernels.cell_loop.fused import FusedForm

__all__ = ["MLSTM", "MLSTMConfig"]


class MLSTMConfig(MultiplicativeConfig):
    """Options of the multiplicative LSTM."""

    name: Literal["mlstm"] = "mlstm"
    form: Literal["standard", "early"] = Field(
        default="standard",
        description="standard: h = o*tanh(c) with a tanh candidate; early: linear candidate, h = tanh(o*c + b)",
    )
    coupled: bool = Field(
        default=False, description="use 1 - f as input gate: three gates' weights (Greff et al. 2017)"
    )
    forget_bias: float = Field(
        default=1.0, ge=-1e4, le=1e4, description="initial bias of the forget gate (3 in the large published system)"
    )

    @model_validator(mode="after")
    def _one_input_gate(self) -> "MLSTMConfig":
        if self.coupled and self.form == "early":
            raise UsageError("the early form of the mLSTM has an input gate of its own; leave out coupled.")
        return self


class MLSTM(MultiplicativeCell):
    r"""Multiplicative LSTM (Krause, Lu, Murray and Renals 2016): one m replaces h in all four gates.

    .. math::
        m_t &= (W_{mx} x_t) \odot (W_{mh} h_{t-1}) \\
        (i, f, g, o) &= W_x x_t + W_m m_t + b \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= \sigma(o) \odot \tanh(c_t)

    That is ``sharing = "shared"``; :class:`~.second_order.MultiplicativeCell` has the other terms in
    place of W_m m, and multiplicative integration (Wu et al. 2016).

    Two published forms. ``standard`` is the above (the authors' later code and the sentiment-neuron model).
    ``early`` (the first, MATLAB version): linear candidate g without bias, h_t = tanh(σ(o) ⊙ c_t + b_h); its ``bias``
    holds b_i, b_f, b_h, b_o in the gates' order. Weight normalisation: each matrix is g V/norm(V) with the norm per
    output row, g starting at the norms so that the start is unchanged. Gate order i, f, g, o (the published code has
    i, f, o, g).

    Two options that no paper has: ``coupled`` gates (i = 1 - f, blocks f, g, o) and a bias on W_mx x
    (``factor_bias``); both train faster in the first minutes (docs/log.md).

    Parameters F(I + N) + 4(NI + NF + N), + 2F + 8N with weight normalisation, + F for the factor's bias; 3 for 4
    where coupled; 4N(I + 1) and the term's count for the other terms.
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
        MLSTMConfig(sharing="per_gate", factor=3, weight_norm=True),
        MLSTMConfig(sharing="shared_recurrent", factor=3, factor_bias=0.5),
        MLSTMConfig(sharing="shared_input", coupled=True, product="add"),
        MLSTMConfig(sharing="block_readout", factor=12, init="orthogonal"),
        MLSTMConfig(sharing="direct", form="early"),
        MLSTMConfig(sharing="integration", gains=(1.0, 0.5, 0.5)),
    )
    EQUATION = "m = (Wmx x)*(Wmh h); an LSTM step on (x, m)"
    GATES = ("i", "f", "g", "o")

    @classmethod
    def gate_count(cls, config: Any) -> int:
        """Four, three where coupled."""
        return 3 if config.coupled else 4

    def reset_parameters(self) -> None:
        """Draw the weights anew; biases zero but for the forget gate's; gains at the row norms."""
        super().reset_parameters()
        with torch.no_grad():
            self.bias[-3 * self.width : -2 * self.width] = self.config.forget_bias

    def gate_bias(self, w: Weights) -> Tensor:
        """b; in the early form its third block is the output's, and the candidate has none."""
        bias, n = w["bias"], self.width
        if self.config.form == "early":
            return torch.cat([bias[: 2 * n], torch.zeros_like(bias[:n]), bias[3 * n :]])
        return bias

    def step(self, pre: tuple[Tensor, Tensor], state: LSTMState, w: Weights, tap: Tap) -> tuple[Tensor, LSTMState]:
        """One step of the class's equations."""
        gates = self.gates(pre, state.h, w, tap)
        if self.config.form == "early":
            i_pre, f_pre, g, o_pre = gates.chunk(4, -1)
            i, f, o = torch.sigmoid(i_pre), torch.sigmoid(f_pre), torch.sigmoid(o_pre)
            c = f * state.c + i * g
            h_pre = o * c + w["bias"][2 * self.width : 3 * self.width]
            h = torch.tanh(h_pre)
            seen = {"i_pre": i_pre, "f_pre": f_pre, "o_pre": o_pre, "i": i, "f": f, "g": g, "o": o, "c": c}
            seen["h_pre"] = h_pre
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
        if self.config.sharing != "shared" or self.config.product != "multiply":
            return "the fused form has only a shared product"
        return FusedForm("weight_m", "weight_mh", self.config.coupled, False)
