"""The pointwise part of an LSTM step, shared by the cells that have one."""

import torch
from torch import Tensor

__all__ = ["lstm_gates"]


def lstm_gates(gates: Tensor, c: Tensor, coupled: bool = False, cap: bool = False) -> dict[str, Tensor]:
    """Gates and new cell state.

    Args:
        gates: pre-activations (batch, 4N) in the order i, f, g, o; (batch, 3N) as f, g, o where coupled.
        c: (batch, N) cell state before the step.
        coupled: the input gate is 1 - f. cap: the input gate is min(1 - f, i).
    Returns:
        i, f, g, o after their nonlinearities, and the new c.
    """
    if coupled:
        f, g, o = gates.chunk(3, -1)
        f = torch.sigmoid(f)
        i = 1 - f
    else:
        i, f, g, o = gates.chunk(4, -1)
        i, f = torch.sigmoid(i), torch.sigmoid(f)
        if cap:
            i = torch.minimum(1 - f, i)
    g, o = torch.tanh(g), torch.sigmoid(o)
    return {"i": i, "f": f, "g": g, "o": o, "c": f * c + i * g}
