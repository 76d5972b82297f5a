"""Cells broken in what they do over time."""

import torch
from torch import nn

from unrolled.cells.gated.lstm import LSTMState

from .base import RightLSTM

__all__ = [
    "ForgetsCarry",
    "GrowingState",
    "HiddenBuffer",
    "IgnoresInput",
    "IgnoresReset",
    "LooksAhead",
    "MixesRows",
    "ResetsAfterTheToken",
    "ResetsToZero",
    "SecondBody",
    "SinglePrecision",
    "Start",
    "TooNarrow",
    "WritesIntoState",
]


class GrowingState(RightLSTM):
    def call(self, x, state, reset, noise, tap):
        y, new = super().call(x, LSTMState(state.h[:, : self.width], state.c), reset, noise, tap)
        return y, new._replace(h=torch.cat([new.h, new.h], 1))


class TooNarrow(RightLSTM):
    def call(self, x, state, reset, noise, tap):
        y, new = super().call(x, state, reset, noise, tap)
        return y[..., 1:], new


class SinglePrecision(RightLSTM):
    def call(self, x, state, reset, noise, tap):
        y, new = super().call(x, state, reset, noise, tap)
        return y.float(), new


class ForgetsCarry(RightLSTM):
    def call(self, x, state, reset, noise, tap):
        return super().call(x, state._replace(c=torch.zeros_like(state.c)), reset, noise, tap)


class SecondBody(RightLSTM):
    def call(self, x, state, reset, noise, tap):
        y, new = super().call(x, state, reset, noise, tap)
        return (y * 1.001 if x.shape[1] == 1 else y), new


class IgnoresReset(RightLSTM):
    def call(self, x, state, reset, noise, tap):
        return super().call(x, state, None, noise, tap)


class ResetsAfterTheToken(RightLSTM):
    def call(self, x, state, reset, noise, tap):
        late = None if reset is None else torch.cat([torch.zeros_like(reset[:, :1]), reset[:, :-1]], 1)
        return super().call(x, state, late, noise, tap)


class Start(RightLSTM):
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


class LooksAhead(RightLSTM):
    def call(self, x, state, reset, noise, tap):
        y, new = super().call(x, state, reset, noise, tap)
        return y + 0.01 * y.roll(-1, 1), new


class IgnoresInput(RightLSTM):
    def call(self, x, state, reset, noise, tap):
        return super().call(x * 0, state, reset, noise, tap)


class MixesRows(RightLSTM):
    def call(self, x, state, reset, noise, tap):
        return super().call(x - x.mean(0), state, reset, noise, tap)


class HiddenBuffer(RightLSTM):
    def call(self, x, state, reset, noise, tap):
        y, self.last = super().call(x, getattr(self, "last", state), reset, noise, tap)
        return y, self.last


class WritesIntoState(RightLSTM):
    def call(self, x, state, reset, noise, tap):
        if not torch.is_grad_enabled():
            state.c.mul_(0.5)
        return super().call(x, state, reset, noise, tap)
