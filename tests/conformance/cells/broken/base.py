"""Right cells to break."""

from typing import Any

from torch import Tensor

from unrolled.cells import Noise, Tap
from unrolled.cells.gated.lstm import LSTM, LSTMConfig, LSTMState
from unrolled.cells.gated.rnn import RNN, RNNConfig

__all__ = ["RightLSTM", "RightRNN"]


class RightLSTM(LSTM):
    """An LSTM made as ``Class(in_width, width)``, whose calls go through ``call``."""

    def __init__(self, in_width: int, width: int):
        super().__init__(in_width, width, LSTMConfig(forget_bias=0.0))

    def forward(self, x: Tensor, state: Any = None, reset: Any = None, noise: Any = None, tap: Any = None) -> Any:
        if state is None:
            state = self.initial_state(len(x), dtype=x.dtype)
        return self.call(x, state, reset, noise, tap)

    def call(self, x: Tensor, state: LSTMState, reset: Tensor | None, noise: Noise | None, tap: Tap | None) -> Any:
        return super().forward(x, state, reset, noise, tap)


class RightRNN(RNN):
    def __init__(self, in_width: int, width: int):
        super().__init__(in_width, width, RNNConfig())
