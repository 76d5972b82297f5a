"""Multiplicative LSTM."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, StepCell, Tap, Weights
from unrolled.cells.init import Init, fill_matrix, fill_vectors
from unrolled.cells.lstm import LSTMState

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
    forget_bias: float = Field(
        default=1.0, description="initial bias of the forget gate (3 in the large published system)"
    )
    init: Init = Field(default="uniform", description="initialisation of the matrices")


class MLSTM(StepCell):
    r"""Multiplicative LSTM (Krause, Lu, Murray and Renals 2016): one m replaces h in all four gates.

    .. math::
        m_t &= (W_{mx} x_t) \odot (W_{mh} h_{t-1}) \\
        (i, f, g, o) &= W_x x_t + W_m m_t + b \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= \sigma(o) \odot \tanh(c_t)

    Two published forms. ``standard`` is the above (the authors' later code and the sentiment-neuron model).
    ``early`` (the first, MATLAB version): linear candidate g without bias, h_t = tanh(σ(o) ⊙ c_t + b_h); its ``bias``
    holds b_i, b_f, b_h, b_o in the gates' order. Weight normalisation: each of the four matrices is g V/|V| with the
    norm per output row, g starting at the norms so that the start is unchanged. Gate order i, f, g, o (the published
    code has i, f, o, g). Parameters F(I + N) + 4(NI + NF + N), + 2F + 8N with weight normalisation.
    """

    Config = MLSTMConfig
    State = LSTMState
    EXAMPLES = (
        MLSTMConfig(),
        MLSTMConfig(factor=3, init="orthogonal"),
        MLSTMConfig(weight_norm=True),
        MLSTMConfig(form="early"),
        MLSTMConfig(form="early", weight_norm=True, factor=7),
    )
    EQUATION = "m = (Wmx x)*(Wmh h); an LSTM step on (x, m)"
    recurrent_weights = ("weight_mh", "weight_m")

    def __init__(self, in_width: int, width: int, config: MLSTMConfig):
        super().__init__(in_width, width, config)
        factor = config.factor or width
        shapes = {
            "weight_x": (4 * width, in_width),
            "weight_mx": (factor, in_width),
            "weight_mh": (factor, width),
            "weight_m": (4 * width, factor),
        }
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
            if config.weight_norm:
                self.register_parameter(f"{name}_gain", nn.Parameter(torch.empty(shape[0])))
        self.bias = nn.Parameter(torch.empty(4 * width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew; biases zero but for the forget gate's; gains at the row norms."""
        init, width = self.config.init, self.width
        for name in _MATRICES:
            weight = self.get_parameter(name)
            blocks = 4 if name in ("weight_x", "weight_m") else 1
            fill_matrix(weight, init, width, blocks, recurrent=not name.endswith("x"))
            if self.config.weight_norm:
                with torch.no_grad():
                    self.get_parameter(f"{name}_gain").copy_(weight.norm(dim=1))
        fill_vectors([self.bias])
        with torch.no_grad():
            self.bias[width : 2 * width] = self.config.forget_bias

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
        return w.linear("weight_x", x) + bias, w.linear("weight_mx", x)

    def step(self, pre: tuple[Tensor, Tensor], state: LSTMState, w: Weights, tap: Tap) -> tuple[Tensor, LSTMState]:
        """One step of the class's equations."""
        m = pre[1] * w.linear("weight_mh", state.h)
        i, f, g, o = w.linear("weight_m", m, pre[0]).chunk(4, -1)
        i, f, o = torch.sigmoid(i), torch.sigmoid(f), torch.sigmoid(o)
        if self.config.form == "standard":
            g = torch.tanh(g)
            c = f * state.c + i * g
            h = o * torch.tanh(c)
        else:
            c = f * state.c + i * g
            h = torch.tanh(o * c + w["bias"][2 * self.width : 3 * self.width])
        for name, value in (("m", m), ("i", i), ("f", f), ("g", g), ("o", o), ("c", c), ("h", h)):
            tap(name, value)
        return h, LSTMState(h, c)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """F(I + N) + 4(NI + NF + N), + 2F + 8N with weight normalisation."""
        factor = config.factor or width
        count = factor * (in_width + width) + 4 * width * (in_width + factor + 1)
        return count + (2 * factor + 8 * width if config.weight_norm else 0)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2F(I + N) + 8N(I + F)."""
        factor = config.factor or width
        return 2 * factor * (in_width + width) + 8 * width * (in_width + factor)
