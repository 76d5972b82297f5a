"""Right cells to break."""

from typing import Any

from torch import Tensor

from unrolled.cells import Noise, Tap
from unrolled.cells.gated.lstm import LSTM, LSTMConfig, LSTMState
from unrolled.cells.gated.rnn import RNN, RNNConfig
from unrolled.cells.matrix.jrt import JRT, JRTConfig

__all__ = ["RightJRT", "RightLSTM", "RightRNN"]


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


class RightJRT(JRT):
    """Its outputs of the first 3 tokens see all 3."""

    def __init__(self, in_width: int, width: int):
        super().__init__(in_width, width, JRTConfig(heads=2, features=2, prefix=3))
