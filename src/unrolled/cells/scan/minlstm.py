"""Minimal LSTM."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from unrolled.cells.scan.mingru import Minimal, MinimalConfig

__all__ = ["MinLSTM", "MinLSTMConfig"]


class MinLSTMConfig(MinimalConfig):
    """Options of the minimal LSTM."""

    name: Literal["minlstm"] = "minlstm"


class MinLSTM(Minimal):
    r"""Minimal LSTM (Feng et al. 2024, arXiv:2410.01201): gates of the input alone, normalised so that they sum to 1.

    .. math::
        f_t &= \sigma(W_f x_t + b_f), \quad i_t = \sigma(W_i x_t + b_i), \quad
        \tilde{h}_t = W_h x_t + b_h \quad (\text{log: } g(W_h x_t + b_h)) \\
        c_t &= \frac{f_t}{f_t + i_t} \odot c_{t-1} + \frac{i_t}{f_t + i_t} \odot \tilde{h}_t, \quad
        h_t = c_t \quad (\text{or } W_o c_t)

    The share that is kept is computed as the logistic function of softplus(-i) - softplus(-f), which is finite where
    both gates are shut. The traced f is that share; i is what is left to 1. Forms, start and biases as in the minGRU.
    A widespread package's minLSTM carries a wrong state from window to window; this one's windows are its steps.
    Blocks of ``weight`` and ``bias`` in the order f, i, h.

    Parameters 3H(I + 1), with H = N; where H differs, N H more.
    """

    Config = MinLSTMConfig
    EXAMPLES = (MinLSTMConfig(), MinLSTMConfig(form="log"), MinLSTMConfig(expansion=1.5))
    EQUATION = "c = f/(f+i)*c + i/(f+i)*n, f, i and n of x alone"
    blocks = 3

    def kept(self, gates: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """log f - log i."""
        f, i = gates
        logit = softplus(-i) - softplus(-f)
        return logit, {"f_pre": logit, "f": torch.sigmoid(logit)}
