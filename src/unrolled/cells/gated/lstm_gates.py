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
        i, f, g, o after their nonlinearities, the new c, and by ``i_pre`` ... what went into the nonlinearities.
    """
    if coupled:
        f_pre, g_pre, o_pre = gates.chunk(3, -1)
        pre = {"f_pre": f_pre, "g_pre": g_pre, "o_pre": o_pre}
        f = torch.sigmoid(f_pre)
        i = 1 - f
    else:
        i_pre, f_pre, g_pre, o_pre = gates.chunk(4, -1)
        pre = {"i_pre": i_pre, "f_pre": f_pre, "g_pre": g_pre, "o_pre": o_pre}
        i, f = torch.sigmoid(i_pre), torch.sigmoid(f_pre)
        if cap:
            i = torch.minimum(1 - f, i)
    g, o = torch.tanh(g_pre), torch.sigmoid(o_pre)
    return {**pre, "i": i, "f": f, "g": g, "o": o, "c": f * c + i * g}
