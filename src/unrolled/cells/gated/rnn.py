"""The simple (Elman) recurrent network."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, HiddenState, StepCell, Tap, Weights
from unrolled.cells.init import Init, fill_matrix, fill_vectors
from unrolled.cells.torch_form import TorchForm, bias_names

__all__ = ["RNN", "RNNConfig"]


class RNNConfig(CellConfig):
    """Options of the simple recurrent network."""

    name: Literal["rnn"] = "rnn"
    nonlinearity: Literal["tanh", "relu"] = Field(default="tanh", description="the cell's nonlinearity")
    bias: Literal["one", "two"] = Field(default="one", description="one bias vector, or two as in torch.nn.RNN")
    init: Init = Field(default="uniform", description="initialisation of the matrices")


class RNN(StepCell):
    r"""Simple recurrent network (Elman 1990).

    .. math:: h_t = \tanh(W_x x_t + W_h h_{t-1} + b)

    Equal to ``torch.nn.RNN`` with the same weights. Parameters: NI + N² + N (2N with two biases).
    """

    Config = RNNConfig
    State = HiddenState
    EXAMPLES = (RNNConfig(), RNNConfig(nonlinearity="relu", bias="two", init="orthogonal"))
    EQUATION = "h = tanh(Wx x + Wh h)"
    recurrent_weights = ("weight_hh",)

    def __init__(self, in_width: int, width: int, config: RNNConfig):
        super().__init__(in_width, width, config)
        self.weight_ih = nn.Parameter(torch.empty(width, in_width))
        self.weight_hh = nn.Parameter(torch.empty(width, width))
        for name in bias_names(config.bias):
            self.register_parameter(name, nn.Parameter(torch.empty(width)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew; biases start at zero."""
        fill_matrix(self.weight_ih, self.config.init, self.width, recurrent=False)
        fill_matrix(self.weight_hh, self.config.init, self.width)
        fill_vectors(self.get_parameter(name) for name in bias_names(self.config.bias))

    def project(self, x: Tensor, w: Weights) -> Tensor:
        """W_x x + b, (..., N)."""
        bias = w["bias"] if self.config.bias == "one" else w["bias_ih"] + w["bias_hh"]
        return w.linear("weight_ih", x, bias)

    def step(self, pre: Tensor, state: HiddenState, w: Weights, tap: Tap) -> tuple[Tensor, HiddenState]:
        """One step of the class's equation."""
        a = w.linear("weight_hh", state.h, pre)
        tap("h_pre", a)
        h = torch.tanh(a) if self.config.nonlinearity == "tanh" else torch.relu(a)
        tap("h", h)
        return h, HiddenState(h)

    def torch_form(self) -> TorchForm | str:
        """How torch's own kernel computes this cell, or why it cannot."""
        names = ("weight_ih", "weight_hh", *bias_names(self.config.bias, padded=True))
        return TorchForm(f"rnn_{self.config.nonlinearity}", names, self.width)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """NI + N² + N, or + 2N with two biases."""
        return width * (in_width + width + len(bias_names(config.bias)))

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2N(I + N)."""
        return 2 * width * (in_width + width)
