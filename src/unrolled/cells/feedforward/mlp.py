"""The multilayer perceptron: a layer by itself, and the second half of a residual block."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import gelu

from unrolled.cells.base import CellConfig
from unrolled.cells.mixer import Given, MixerCell

__all__ = ["GATED", "MLP", "MLPS", "MLPConfig", "MLPKind", "hidden_of", "hidden_width"]

MLPKind = Literal["gelu", "relu", "relu2", "swiglu", "geglu", "geglu_tanh"]


def _squared_relu(x: Any) -> Any:
    y = torch.relu(x)
    return y * y


def _swish(x: Any) -> Any:
    return x * torch.sigmoid(x)


def _gelu_tanh(x: Any) -> Any:
    """The approximation of gelu by tanh; of torch where x is a tensor."""
    if isinstance(x, Tensor):
        return gelu(x, approximate="tanh")
    return 0.5 * x * (torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)) + 1.0)


MLPS: Mapping[str, Callable[[Any], Any]] = {
    "gelu": gelu,
    "relu": torch.relu,
    "relu2": _squared_relu,
    "swiglu": _swish,
    "geglu": gelu,
    "geglu_tanh": _gelu_tanh,
}
"""Kind -> its activation: gelu (Hendrycks and Gimpel 2016), relu, the squared relu of Primer (So et al. 2021), and
gated ones (Shazeer 2020), of which the last approximates gelu by tanh (Gemma, Griffin). They run on tensors and on the
symbols of a native program alike."""

GATED = ("swiglu", "geglu", "geglu_tanh")
"""Kinds whose hidden layer is the product of an activated part and a linear one."""


def hidden_of(kind: str, up: Any, gate: Any = None) -> Any:
    """The hidden layer: activation(up); in a gated kind activation(gate) * up."""
    return MLPS[kind](up) if gate is None else MLPS[kind](gate) * up


def hidden_width(factor: float, width: int) -> int:
    """``factor`` times the width, at least 1."""
    return max(1, round(factor * width))


class MLPConfig(CellConfig):
    """Options of the MLP as a layer."""

    name: Literal["mlp"] = "mlp"
    kind: MLPKind = Field(
        default="gelu",
        description="activation: gelu, relu or relu2 (squared relu); swiglu, geglu or geglu_tanh (by tanh) with a gate",
    )
    factor: float = Field(default=4.0, gt=0, le=1024, description="hidden width, as a multiple of the width")
    bias: bool = Field(default=True, description="biases")


class NoState(NamedTuple):
    """Nothing is carried."""


class MLP(MixerCell):
    r"""A feed-forward layer, which carries nothing from token to token; for stacks of several kinds of layers.

    .. math::
        y_t &= W_d \, \phi(W_u x_t + b_u) + b_d \\
        \text{gated: } y_t &= W_d (\phi(W_g x_t + b_g) \odot (W_u x_t + b_u)) + b_d

    phi is gelu, relu, the squared relu (So et al. 2021), or in gated kinds (Shazeer 2020) swish (swiglu) or gelu
    (geglu, geglu_tanh).
    Weights start as those of ``torch.nn.Linear``. Parameters H(I + N) + H + N with hidden width H; gated
    H(2I + N) + 2H + N; without biases H(I + N) and H(2I + N).
    """

    Config = MLPConfig
    State = NoState
    EXAMPLES = (
        MLPConfig(),
        MLPConfig(kind="swiglu", factor=2.0),
        MLPConfig(kind="relu2"),
        MLPConfig(kind="geglu"),
        MLPConfig(kind="geglu_tanh"),
        MLPConfig(kind="swiglu", factor=1.5, bias=False),
    )
    EQUATION = "y = W_d phi(W_u x)"
    operation = "linear"
    memory = False

    def __init__(self, in_width: int, width: int, config: MLPConfig):
        super().__init__(in_width, width, config)
        hidden, bias = hidden_width(config.factor, width), config.bias
        self.up = nn.Linear(in_width, hidden, bias)
        self.gate = nn.Linear(in_width, hidden, bias) if config.kind in GATED else None
        self.down = nn.Linear(hidden, width, bias)

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> NoState:
        """Nothing."""
        return NoState()

    def backends(self) -> list[str]:
        """Those of ``linear``."""
        return ["window", "reference"]

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        """One window of the class's equations."""
        up, gate = self._product("up", x), None if self.gate is None else self._product("gate", x)
        hidden = hidden_of(self.config.kind, up, gate)
        y = self._product("down", hidden)
        if given.show is not None:
            given.show("hidden", hidden)
        return y, state

    def _product(self, name: str, x: Tensor) -> Tensor:
        return self.linear(f"{name}.weight", x, f"{name}.bias" if self.config.bias else None)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """H(I + N) + H + N, gated H(2I + N) + 2H + N; the biases as the config has them."""
        hidden, ups = hidden_width(config.factor, width), 2 if config.kind in GATED else 1
        return hidden * (ups * in_width + width) + (ups * hidden + width if config.bias else 0)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2H(I + N), gated 2H(2I + N)."""
        return 2 * hidden_width(config.factor, width) * ((2 if config.kind in GATED else 1) * in_width + width)
