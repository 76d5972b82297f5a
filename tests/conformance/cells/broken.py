"""Cells broken on purpose, one or more for each check: what each check must notice."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from unrolled.cells import Noise, StepCell, Tap, Weights
from unrolled.cells.base import CellConfig, HiddenState
from unrolled.cells.gated.lstm import LSTM, LSTMConfig, LSTMState
from unrolled.cells.gated.rnn import RNN, RNNConfig
from unrolled.kernels.cell_loop import silent
from unrolled.kernels.cell_loop.weights import CollectingWeights

__all__ = ["BROKEN", "Start", "TooNarrow"]


class _LSTM(LSTM):
    """An LSTM made as ``Class(in_width, width)``, whose calls go through ``call``."""

    def __init__(self, in_width: int, width: int):
        super().__init__(in_width, width, LSTMConfig(forget_bias=0.0))

    def forward(self, x: Tensor, state: Any = None, reset: Any = None, noise: Any = None, tap: Any = None) -> Any:
        if state is None:
            state = self.initial_state(len(x), dtype=x.dtype)
        return self.call(x, state, reset, noise, tap)

    def call(self, x: Tensor, state: LSTMState, reset: Tensor | None, noise: Noise | None, tap: Tap | None) -> Any:
        return super().forward(x, state, reset, noise, tap)


class _RNN(RNN):
    def __init__(self, in_width: int, width: int):
        super().__init__(in_width, width, RNNConfig())


class GrowingState(_LSTM):
    def call(self, x, state, reset, noise, tap):
        y, new = super().call(x, LSTMState(state.h[:, : self.width], state.c), reset, noise, tap)
        return y, new._replace(h=torch.cat([new.h, new.h], 1))


class TooNarrow(_LSTM):
    def call(self, x, state, reset, noise, tap):
        y, new = super().call(x, state, reset, noise, tap)
        return y[..., 1:], new


class SinglePrecision(_LSTM):
    def call(self, x, state, reset, noise, tap):
        y, new = super().call(x, state, reset, noise, tap)
        return y.float(), new


class ForgetsCarry(_LSTM):
    def call(self, x, state, reset, noise, tap):
        return super().call(x, state._replace(c=torch.zeros_like(state.c)), reset, noise, tap)


class SecondBody(_LSTM):
    def call(self, x, state, reset, noise, tap):
        y, new = super().call(x, state, reset, noise, tap)
        return (y * 1.001 if x.shape[1] == 1 else y), new


class IgnoresReset(_LSTM):
    def call(self, x, state, reset, noise, tap):
        return super().call(x, state, None, noise, tap)


class ResetsAfterTheToken(_LSTM):
    def call(self, x, state, reset, noise, tap):
        late = None if reset is None else torch.cat([torch.zeros_like(reset[:, :1]), reset[:, :-1]], 1)
        return super().call(x, state, late, noise, tap)


class Start(_LSTM):
    """Not broken: an LSTM whose initial state is learned."""

    def __init__(self, in_width: int, width: int):
        super().__init__(in_width, width)
        self.start = nn.Parameter(torch.full((width,), 0.5))

    def initial_state(self, batch, device=None, dtype=None):
        zeros = super().initial_state(batch, device, dtype)
        return zeros._replace(c=self.start.to(device=device, dtype=dtype).expand(batch, -1))

    @classmethod
    def num_params(cls, config, in_width, width):
        return super().num_params(config, in_width, width) + width


class ResetsToZero(Start):
    def call(self, x, state, reset, noise, tap):
        keep = torch.ones_like(x[:, 0, :1]) if reset is None else 1 - reset[:, :1].to(x.dtype)
        return super().call(x, LSTMState(state.h * keep, state.c * keep), None, noise, tap)


class LooksAhead(_LSTM):
    def call(self, x, state, reset, noise, tap):
        y, new = super().call(x, state, reset, noise, tap)
        return y + 0.01 * y.roll(-1, 1), new


class IgnoresInput(_LSTM):
    def call(self, x, state, reset, noise, tap):
        return super().call(x * 0, state, reset, noise, tap)


class MixesRows(_LSTM):
    def call(self, x, state, reset, noise, tap):
        return super().call(x - x.mean(0), state, reset, noise, tap)


class HiddenBuffer(_LSTM):
    def call(self, x, state, reset, noise, tap):
        y, self.last = super().call(x, getattr(self, "last", state), reset, noise, tap)
        return y, self.last


class WritesIntoState(_LSTM):
    def call(self, x, state, reset, noise, tap):
        if not torch.is_grad_enabled():
            state.c.mul_(0.5)
        return super().call(x, state, reset, noise, tap)


class OtherNumbersWhenCollecting(_RNN):
    def step(self, pre, state, w, tap):
        h = super().step(pre, state, w, tap)[0]
        h = h * 1.0001 if isinstance(w, CollectingWeights) else h
        return h, HiddenState(h)


class OtherGradientWhenCollecting(_RNN):
    def step(self, pre, state, w, tap):
        if isinstance(w, CollectingWeights):
            state = HiddenState(state.h.detach())
        return super().step(pre, state, w, tap)


class WrongGradient(_RNN):
    def step(self, pre, state, w, tap):
        h = super().step(pre, state, w, tap)[0] + 0.1 * state.h.detach()
        return h, HiddenState(h)


class IgnoresNoise(_LSTM):
    def call(self, x, state, reset, noise, tap):
        return super().call(x, state, reset, None, tap)


class CopiesItsOutput(_RNN):
    """The masks on h cannot reach an output that is another tensor."""

    def step(self, pre, state, w, tap):
        h = super().step(pre, state, w, tap)[0]
        return h.clone(), HiddenState(h)


class IgnoresZoneout(_LSTM):
    def call(self, x, state, reset, noise, tap):
        return super().call(x, state, reset, None if noise is None else noise._replace(zoneout=None), tap)


class RatesForMasks(_LSTM):
    def call(self, x, state, reset, noise, tap):
        if noise is not None and noise.state_in is not None:
            noise = noise._replace(state_in=1 - noise.state_in)
        return super().call(x, state, reset, noise, tap)


class CachesWeights(_RNN):
    def effective_weights(self) -> Mapping[str, Tensor]:
        if not hasattr(self, "cache"):
            self.cache = dict(super().effective_weights())
        return self.cache


class NamesNoParameter(_RNN):
    recurrent_weights = ("weight_recurrent",)


class LosesDigits(_RNN):
    def step(self, pre, state, w, tap):
        h = super().step(pre, state, w, tap)[0]
        if self.compute.precision == "bf16":
            h = (h + 64).bfloat16().to(h.dtype) - 64
        return h, HiddenState(h)


class IgnoresPrecision(_RNN):
    def project(self, x, w):
        return nn.functional.linear(x, w["weight_ih"], w["bias"])

    def step(self, pre, state, w, tap):
        h = torch.tanh(pre + state.h @ w["weight_hh"].t())
        return h, HiddenState(h)


class MiscountsParameters(_RNN):
    @classmethod
    def num_params(cls, config, in_width, width):
        return super().num_params(config, in_width, width) + 1


class MiscountsFlops(_RNN):
    @classmethod
    def flops_per_token(cls, config, in_width, width):
        return super().flops_per_token(config, in_width, width) // 2


class MiscountsState(_LSTM):
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


class UnsavedWeight(_RNN):
    def __init__(self, in_width: int, width: int):
        super().__init__(in_width, width)
        self.scale = torch.rand(width)

    def project(self, x, w):
        return super().project(x, w) * self.scale


class TapsNaN(_RNN):
    def step(self, pre: Any, state: Any, w: Weights, tap: Tap) -> Any:
        tap("nothing", state.h / 0)
        return super().step(pre, state, w, tap)


class TapsOnce(_RNN):
    def project(self, x, w):
        self.fresh = True
        return super().project(x, w)

    def step(self, pre, state, w, tap):
        y, new = super().step(pre, state, w, silent)
        if self.fresh:
            tap("h", y)
        self.fresh = False
        return y, new


class TracingChanges(_RNN):
    def step(self, pre, state, w, tap):
        return super().step(pre if tap is silent else pre * 1.001, state, w, tap)


class ProjectsTogether(_RNN):
    def project(self, x, w):
        return super().project(x - x.flatten(0, -2).mean(0), w)


class NoMemory(_RNN):
    def step(self, pre, state, w, tap):
        return super().step(pre, HiddenState(state.h * 0), w, tap)


BROKEN: dict[str, tuple[type[StepCell], ...]] = {
    "shapes": (GrowingState, SinglePrecision),
    "splits": (ForgetsCarry,),
    "stepwise": (SecondBody,),
    "resets_separate_documents": (IgnoresReset, ResetsAfterTheToken),
    "reset_restores_start": (ResetsToZero, IgnoresReset),
    "no_future": (LooksAhead, IgnoresInput),
    "rows_independent": (MixesRows,),
    "pure": (HiddenBuffer, WritesIntoState),
    "backends": (OtherNumbersWhenCollecting, OtherGradientWhenCollecting),
    "table_input": (ProjectsTogether,),
    "gradients": (WrongGradient,),
    "noise": (IgnoresNoise, IgnoresZoneout, RatesForMasks, CopiesItsOutput),
    "weight_drop": (CachesWeights, NamesNoParameter),
    "bf16": (LosesDigits, IgnoresPrecision),
    "num_params": (MiscountsParameters,),
    "flops": (MiscountsFlops,),
    "state_size": (MiscountsState,),
    "config": (UnstableConfig, UndescribedConfig, OpenConfig),
    "save_load": (UnsavedWeight,),
    "tap": (TapsNaN, TapsOnce, TracingChanges),
    "memorises": (NoMemory,),
}
