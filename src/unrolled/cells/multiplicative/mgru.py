"""Multiplicative GRU."""

from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unrolled.cells.base import HiddenState, Tap, Weights
from unrolled.cells.multiplicative.second_order import Layout, MultiplicativeCell, MultiplicativeConfig
from unrolled.cells.taps import tap_blocks
from unrolled.core.errors import UsageError

__all__ = ["MGRU", "MGRUConfig"]


class MGRUConfig(MultiplicativeConfig):
    """Options of the multiplicative GRU."""

    name: Literal["mgru"] = "mgru"
    reset: Literal["after", "before", "hidden"] = Field(
        default="after",
        description="where the reset gate acts in the candidate's term: after its readout, r*(W_m m), which keeps one "
        "shared m; before it, W_m (r*m); or on the hidden state, m' = (W_mx x)*(W_mh (r*h)) for the candidate alone",
    )

    @model_validator(mode="after")
    def _reset_place(self) -> "MGRUConfig":
        if self.reset == "before" and self.sharing in ("direct", "integration"):
            raise UsageError(f"sharing = {self.sharing} has no readout to reset before; set reset to after or hidden.")
        return self


class MGRU(MultiplicativeCell):
    r"""Multiplicative GRU: one m replaces h in the gates and the candidate of a GRU.

    .. math::
        m_t &= (W_{mx} x_t) \odot (W_{mh} h_{t-1}) \\
        r, z &= \sigma(W_x x_t + W_m m_t + b) \\
        n &= \tanh(W_x^n x_t + b_n + r \odot (W_m^n m_t)) \quad\text{(reset after)} \\
        n &= \tanh(W_x^n x_t + b_n + W_m^n (r \odot m_t)) \quad\text{(reset before)} \\
        n &= \tanh(W_x^n x_t + b_n + W_m^n [(W_{mx} x_t) \odot (W_{mh} (r \odot h_{t-1}))])
        \quad\text{(reset hidden)} \\
        h_t &= (1 - z) \odot n + z \odot h_{t-1}

    The leak path is h itself. The name is in Maupomé and Meurs 2019, whose equations were not at hand: the place of the
    reset gate is therefore an option, and the default is the one that keeps a single m. Gate order r, z, n, and z is
    the share that is kept, as in :class:`~unrolled.cells.gated.gru.GRU`. ``sharing`` selects the other terms of
    :class:`~.second_order.MultiplicativeCell`; ``integration`` with ``reset = "hidden"`` is the MI-GRU of
    Wu et al. 2016. ``before`` needs an m as wide as the cell.

    Parameters 3N(I + 1) and the term's count: F(I + N) + 3NF where shared.
    """

    Config = MGRUConfig
    State = HiddenState
    EXAMPLES = (
        MGRUConfig(),
        MGRUConfig(factor=3, init="orthogonal", factor_bias=1.0),
        MGRUConfig(reset="before", weight_norm=True),
        MGRUConfig(reset="hidden", factor=3),
        MGRUConfig(sharing="per_gate", factor=3, reset="hidden", weight_norm=True),
        MGRUConfig(sharing="per_gate", reset="before"),
        MGRUConfig(sharing="shared_recurrent", factor=3, reset="hidden", product="add"),
        MGRUConfig(sharing="shared_input", factor=3, init="variance_scaling"),
        MGRUConfig(sharing="block_readout", factor=9),
        MGRUConfig(sharing="direct"),
        MGRUConfig(sharing="integration", reset="hidden"),
    )
    EQUATION = "m = (Wmx x)*(Wmh h); a GRU step on (x, m)"
    GATES = ("r", "z", "n")

    @classmethod
    def apart(cls, config: Any) -> tuple[str, ...]:
        """Those of the candidate that come behind the reset gate."""
        return {"after": (), "before": ("weight_m",), "hidden": ("weight_mh", "weight_m")}[config.reset]

    @classmethod
    def _layout(cls, config: Any, width: int) -> Layout:
        layout = super()._layout(config, width)
        if config.reset == "before" and layout.size != width:
            raise UsageError(
                f"reset = before multiplies m by r: its size must be the width {width}, not {layout.size}."
            )
        return layout

    def _split(self, v: Tensor, common: bool) -> tuple[Tensor, Tensor]:
        """The gates' and the candidate's part of what may be common to them."""
        n = self.layout.size
        return (v, v) if common else (v[..., : 2 * n], v[..., 2 * n :])

    def step(self, pre: tuple[Tensor, Tensor], state: HiddenState, w: Weights, tap: Tap) -> tuple[Tensor, HiddenState]:
        """One step of the class's equations."""
        n, h, layout = 2 * self.width, state.h, self.layout
        first, first_n = pre[0][..., :n], pre[0][..., n:]
        recurrent = w.linear("weight_mh", h)
        if self.config.reset == "hidden":
            factor, factor_n = self._split(pre[1], layout.inputs == 1)
            m = self.intermediate(factor, recurrent)
            gates = self.readout(m, w, first)
            r, z = torch.sigmoid(gates).chunk(2, -1)
            m_n = self.intermediate(factor_n, w.linear("weight_mh" if layout.recurrents == 1 else "weight_mh_n", r * h))
            tap("m_n", m_n)
            candidate_pre = self.readout(m_n, w, first_n, "weight_m_n")
        else:
            m = self.intermediate(pre[1], recurrent)
            if self.config.reset == "before":
                m_gates, m_n = self._split(m, layout.inputs == layout.recurrents == 1)
                gates = self.readout(m_gates, w, first)
                r, z = torch.sigmoid(gates).chunk(2, -1)
                candidate_pre = self.readout(r * m_n, w, first_n, "weight_m_n")
            else:
                term = self.readout(m, w)
                gates = first + term[..., :n]
                r, z = torch.sigmoid(gates).chunk(2, -1)
                candidate_pre = first_n + r * term[..., n:]
        candidate = torch.tanh(candidate_pre)
        h = candidate + z * (h - candidate)
        self.tap_intermediate(tap, m)
        tap_blocks(tap, ("r_pre", "z_pre"), gates)
        for name, value in (("n_pre", candidate_pre), ("r", r), ("z", z), ("n", candidate), ("h", h)):
            tap(name, value)
        return h, HiddenState(h)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """Twice the sizes of the matrices, + 2FN where one W_mh multiplies both h and r*h."""
        layout = cls._layout(config, width)
        twice = config.reset == "hidden" and layout.recurrents == 1
        return super().flops_per_token(config, in_width, width) + (2 * layout.size * width if twice else 0)
