"""Cells that say what is not so of themselves."""

from typing import Any, Literal

import torch
from pydantic import Field, field_validator

from unrolled.cells import ParameterRule, Tap, Weights
from unrolled.cells.base import CellConfig, HiddenState
from unrolled.cells.gated.rnn import RNN, RNNConfig
from unrolled.core.errors import UsageError
from unrolled.kernels.cell_loop import silent

from .base import RightLSTM, RightRNN

__all__ = [
    "DeniesMemory",
    "MiscountsFlops",
    "MiscountsParameters",
    "MiscountsState",
    "NoMemory",
    "OpenConfig",
    "RefusesBlindly",
    "RefusesThree",
    "RulesForNothing",
    "TapsNaN",
    "TapsOnce",
    "TracingChanges",
    "UndescribedConfig",
    "UnsavedWeight",
    "UnstableConfig",
]


class RefusesThree(RightRNN):
    def __init__(self, in_width: int, width: int):
        if width == 3:
            raise UsageError("the width of a rnn is a multiple of 2 here, not 3; try 2 or 4.")
        super().__init__(in_width, width)


class RefusesBlindly(RightRNN):
    def __init__(self, in_width: int, width: int):
        if width % 2:
            raise UsageError("the width of a rnn is a multiple of something else.")
        super().__init__(in_width, width)

    @classmethod
    def width_multiple(cls, config):
        return 2


class RulesForNothing(RightRNN):
    parameter_rules = {"weight_xx": ParameterRule(decay=False)}


class DeniesMemory(RightRNN):
    memory = False


class MiscountsParameters(RightRNN):
    @classmethod
    def num_params(cls, config, in_width, width):
        return super().num_params(config, in_width, width) + 1


class MiscountsFlops(RightRNN):
    @classmethod
    def flops_per_token(cls, config, in_width, width):
        return super().flops_per_token(config, in_width, width) // 2


class MiscountsState(RightLSTM):
    def state_size(self):
        return self.width


class _UnstableConfig(CellConfig):
    name: Literal["rnn"] = "rnn"
    nonlinearity: Literal["tanh"] = Field(default="tanh", description="as in RNN")
    bias: Literal["one"] = Field(default="one", description="as in RNN")
    init: Literal["uniform"] = Field(default="uniform", description="as in RNN")
    extra: int = Field(default=1, description="grows whenever it is read")

    @field_validator("extra")
    @classmethod
    def _grow(cls, value: int) -> int:
        return value + 1


class _UndescribedConfig(RNNConfig):
    extra: int = 1


class _OpenConfig(RNNConfig, extra="ignore"):
    pass


class UnstableConfig(RNN):
    Config: Any = _UnstableConfig

    def __init__(self, in_width: int, width: int):
        super().__init__(in_width, width, self.Config())


class UndescribedConfig(UnstableConfig):
    Config = _UndescribedConfig


class OpenConfig(UnstableConfig):
    Config = _OpenConfig


class UnsavedWeight(RightRNN):
    def __init__(self, in_width: int, width: int):
        super().__init__(in_width, width)
        self.scale = torch.rand(width)

    def project(self, x, w):
        return super().project(x, w) * self.scale


class TapsNaN(RightRNN):
    def step(self, pre: Any, state: Any, w: Weights, tap: Tap) -> Any:
        tap("nothing", state.h / 0)
        return super().step(pre, state, w, tap)


class TapsOnce(RightRNN):
    def project(self, x, w):
        self.fresh = True
        return super().project(x, w)

    def step(self, pre, state, w, tap):
        y, new = super().step(pre, state, w, silent)
        if self.fresh:
            tap("h", y)
        self.fresh = False
        return y, new


class TracingChanges(RightRNN):
    def step(self, pre, state, w, tap):
        return super().step(pre if tap is silent else pre * 1.001, state, w, tap)


class NoMemory(RightRNN):
    def step(self, pre, state, w, tap):
        return super().step(pre, HiddenState(state.h * 0), w, tap)
