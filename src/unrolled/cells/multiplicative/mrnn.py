"""Multiplicative recurrent network."""

from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor

from unrolled.cells.base import HiddenState, Tap, Weights
from unrolled.cells.multiplicative.second_order import MultiplicativeCell, MultiplicativeConfig
from unrolled.core.errors import UsageError

__all__ = ["MRNN", "MRNNConfig"]


class MRNNConfig(MultiplicativeConfig):
    """Options of the multiplicative RNN."""

    name: Literal["mrnn"] = "mrnn"

    @model_validator(mode="after")
    def _one_gate(self) -> "MRNNConfig":
        if self.sharing not in ("shared", "direct", "integration"):
            raise UsageError(f"the mRNN has no gates between which sharing = {self.sharing} could matter; use shared.")
        return self


class MRNN(MultiplicativeCell):
    r"""Multiplicative RNN (Sutskever, Martens and Hinton 2011): the recurrent matrix depends on the input.

    .. math::
        m_t &= (W_{mx} x_t) \odot (W_{mh} h_{t-1}) \\
        h_t &= \tanh(W_x x_t + W_m m_t + b)

    The paper writes the factored tensor W_m diag(W_mx x) W_mh; the two are the same. It was trained by Hessian-free
    optimisation, which is not needed here. Parameters FI + FN + NI + NF + N. The terms ``direct`` and ``integration``
    (MI-RNN, Wu et al. 2016) of :class:`~.second_order.MultiplicativeCell` may replace W_m m.
    """

    Config = MRNNConfig
    State = HiddenState
    EXAMPLES = (
        MRNNConfig(),
        MRNNConfig(factor=3, init="orthogonal"),
        MRNNConfig(factor=3, product="add", weight_norm=True),
        MRNNConfig(sharing="direct", factor_bias=1.0),
        MRNNConfig(sharing="integration"),
    )
    EQUATION = "m = (Wmx x)*(Wmh h); h = tanh(Wx x + Wm m)"
    GATES = ("h",)

    def step(self, pre: tuple[Tensor, Tensor], state: HiddenState, w: Weights, tap: Tap) -> tuple[Tensor, HiddenState]:
        """One step of the class's equations."""
        h_pre = self.gates(pre, state.h, w, tap)
        h = torch.tanh(h_pre)
        tap("h_pre", h_pre)
        tap("h", h)
        return h, HiddenState(h)
