"""Gated recurrent unit."""

from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from unrolled.cells.base import CellConfig, HiddenState, StepCell, Tap, Weights
from unrolled.cells.init import Init, fill_matrix, fill_vectors
from unrolled.cells.taps import tap_blocks
from unrolled.cells.torch_form import TorchForm

__all__ = ["GRU", "GRUConfig"]


class GRUConfig(CellConfig):
    """Options of the GRU."""

    name: Literal["gru"] = "gru"
    reset: Literal["after", "before"] = Field(
        default="after",
        description="reset gate after the recurrent product (cuDNN, torch) or on h before it (Cho, Chung et al. 2014)",
    )
    layer_norm: bool = Field(default=False, description="normalise W_x x and W_h h over the layer (Ba et al. 2016)")
    bias: Literal["one", "two"] = Field(
        default="two",
        description="two as in torch.nn.GRU; one leaves out the recurrent bias, which also acts inside the reset "
        "when that comes after the product",
    )
    init: Init = Field(default="uniform", description="initialisation of the matrices")

    @model_validator(mode="after")
    def _biases(self) -> "GRUConfig":
        if self.layer_norm and self.bias == "two":
            object.__setattr__(self, "bias", "one")
        return self


class GRU(StepCell):
    r"""Gated recurrent unit (Cho et al. 2014) in torch's form and in the published one.

    .. math::
        r, z &= \sigma(W x_t + U h_{t-1} + b) \\
        n &= \tanh(W_n x_t + b_n + r \odot (U_n h_{t-1} + b_{hn})) \quad\text{(reset after)} \\
        n &= \tanh(W_n x_t + b_n + U_n (r \odot h_{t-1}) + b_{hn}) \quad\text{(reset before)} \\
        h_t &= (1 - z) \odot n + z \odot h_{t-1}

    Gate order r, z, n as in torch; z is the share that is *kept* (some papers swap z and 1 - z). With layer norm
    (Ba et al. 2016) each product is normalised, the gates' 2N and the candidate's N apart; the biases of W_x x + b
    are the shift, and there is no second bias. Parameters 3(NI + N² + 2N), 3N fewer with one bias.
    """

    Config = GRUConfig
    State = HiddenState
    EXAMPLES = (
        GRUConfig(),
        GRUConfig(bias="one", init="orthogonal"),
        GRUConfig(reset="before"),
        GRUConfig(layer_norm=True),
        GRUConfig(reset="before", layer_norm=True, init="truncated_normal"),
    )
    EQUATION = "h = (1-z)*n + z*h"
    recurrent_weights = ("weight_hh",)

    def __init__(self, in_width: int, width: int, config: GRUConfig):
        super().__init__(in_width, width, config)
        before = config.reset == "before"
        self.weight_ih = nn.Parameter(torch.empty(3 * width, in_width))
        # with the reset before the product the candidate's matrix multiplies another vector than the gates'
        self.weight_hh = nn.Parameter(torch.empty((2 if before else 3) * width, width))
        if before:
            self.weight_hn = nn.Parameter(torch.empty(width, width))
            self.recurrent_weights = ("weight_hh", "weight_hn")
        if config.bias == "two":
            self.bias_ih = nn.Parameter(torch.empty(3 * width))
            self.bias_hh = nn.Parameter(torch.empty(3 * width))
        else:
            self.bias = nn.Parameter(torch.empty(3 * width))
        if config.layer_norm:
            self.gain_x = nn.Parameter(torch.ones(3 * width))
            self.gain_h = nn.Parameter(torch.ones(3 * width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew; biases start at zero."""
        fill_matrix(self.weight_ih, self.config.init, self.width, 3, recurrent=False)
        for name in self.recurrent_weights:
            weight = self.get_parameter(name)
            fill_matrix(weight, self.config.init, self.width, weight.shape[0] // self.width)
        fill_vectors(p for name, p in self.named_parameters() if name.startswith("bias"))

    def _norm(self, v: Tensor, gain: Tensor) -> Tensor:
        return layer_norm(v, v.shape[-1:], gain) if self.config.layer_norm else v

    def _split_norm(self, v: Tensor, gain: Tensor) -> Tensor:
        """Layer norm of (..., 3N): gates together, candidate apart."""
        n = 2 * self.width
        return torch.cat([self._norm(v[..., :n], gain[:n]), self._norm(v[..., n:], gain[n:])], -1)

    def project(self, x: Tensor, w: Weights) -> Tensor:
        """W x + b, (..., 3N)."""
        bias = w["bias"] if self.config.bias == "one" else w["bias_ih"]
        if self.config.layer_norm:
            return self._split_norm(w.linear("weight_ih", x), w["gain_x"]) + bias
        return w.linear("weight_ih", x, bias)

    def step(self, pre: Tensor, state: HiddenState, w: Weights, tap: Tap) -> tuple[Tensor, HiddenState]:
        """One step of the class's equations."""
        n, h = 2 * self.width, state.h
        shift = w["bias_hh"] if self.config.bias == "two" else None
        if self.config.reset == "after":
            recurrent = w.linear("weight_hh", h)
            if shift is not None:
                recurrent = recurrent + shift
            if self.config.layer_norm:
                recurrent = self._split_norm(recurrent, w["gain_h"])
            before = pre[..., :n] + recurrent[..., :n]
            r, z = torch.sigmoid(before).chunk(2, -1)
            candidate = r * recurrent[..., n:]
        else:
            gates = w.linear("weight_hh", h)
            if shift is not None:
                gates = gates + shift[:n]
            if self.config.layer_norm:
                gates = self._norm(gates, w["gain_h"][:n])
            before = pre[..., :n] + gates
            r, z = torch.sigmoid(before).chunk(2, -1)
            candidate = w.linear("weight_hn", r * h)
            if shift is not None:
                candidate = candidate + shift[n:]
            if self.config.layer_norm:
                candidate = self._norm(candidate, w["gain_h"][n:])
        candidate_pre = pre[..., n:] + candidate
        candidate = torch.tanh(candidate_pre)
        h = candidate + z * (h - candidate)
        tap_blocks(tap, ("r_pre", "z_pre"), before)
        for name, value in (("n_pre", candidate_pre), ("r", r), ("z", z), ("n", candidate), ("h", h)):
            tap(name, value)
        return h, HiddenState(h)

    def torch_form(self) -> TorchForm | str:
        """How torch's own kernel computes this cell, or why it cannot."""
        if self.config.reset == "before":
            return "torch's GRU resets after the product, this one before"
        if self.config.layer_norm:
            return "torch's GRU has no layer norm"
        biases = ("bias_ih", "bias_hh") if self.config.bias == "two" else ("bias", None)
        return TorchForm("gru", ("weight_ih", "weight_hh", *biases), 3 * self.width)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """3(NI + N² + N), + 3N for a second bias, + 6N for layer norm."""
        extra = (1 if config.bias == "two" else 0) + (2 if config.layer_norm else 0)
        return 3 * width * (in_width + width + 1 + extra)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """6N(I + N)."""
        return 6 * width * (in_width + width)
