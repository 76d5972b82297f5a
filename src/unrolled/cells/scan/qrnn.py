"""Quasi-recurrent neural network."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig
from unrolled.cells.mixer import Given, MixerCell
from unrolled.cells.parts.shift import shifted
from unrolled.kernels.diag_scan import diag_scan

__all__ = ["QRNN", "QRNNConfig"]

_GATES = {"f": 2, "fo": 3, "ifo": 4}


class QRNNConfig(CellConfig):
    """Options of the QRNN."""

    name: Literal["qrnn"] = "qrnn"
    window: Literal[1, 2] = Field(default=1, description="inputs that each step sees: its own, or the one before too")
    pooling: Literal["f", "fo", "ifo"] = Field(
        default="fo", description="f: h = c; fo: with an output gate; ifo: with an input gate of its own too"
    )


class PooledState(NamedTuple):
    """c: (batch, width)."""

    c: Tensor


class WindowedState(NamedTuple):
    """c: (batch, width). x: (batch, in_width), the last input, zero before the first."""

    c: Tensor
    x: Tensor


class QRNN(MixerCell):
    r"""Quasi-recurrent neural network (Bradbury et al. 2017) as the QRNN language models of Merity et al. 2018 have it.

    .. math::
        u_t &= x_t \text{ or } [x_t; x_{t-1}] \\
        z &= \tanh(W_z u_t + b_z), \quad f, o, i = \sigma(W_g u_t + b_g) \\
        c_t &= (1 - f) \odot c_{t-1} + f \odot z \quad (\text{ifo: } + \, i \odot z) \\
        h_t &= o \odot c_t \quad (\text{f: } h_t = c_t)

    f is the share that is *written*, as in the published code; the paper's f is 1 - f. Blocks of ``weight`` and
    ``bias`` in the order z, f, o, i. The last input is part of the state, so that a sequence in pieces is the whole;
    the published code keeps it on the module, cut from the graph. Zoneout acts on c: to keep c with probability p is
    to multiply the published f by a Bernoulli(1 - p) mask. Weight drop masks the whole linear map. Weights start as
    those of ``torch.nn.Linear``.

    Parameters G N (k I + 1) with G gates (2, 3 or 4) and window k.
    """

    Config = QRNNConfig
    State = PooledState
    EXAMPLES = (
        QRNNConfig(),
        QRNNConfig(window=2),
        QRNNConfig(pooling="f", window=2),
        QRNNConfig(pooling="ifo", window=2),
    )
    EQUATION = "c = (1-f)*c + f*z; h = o*c"
    recurrent_weights = ("weight",)
    zoneout_fields = ("c",)
    operation = "diag_scan"

    def __init__(self, in_width: int, width: int, config: QRNNConfig):
        super().__init__(in_width, width, config)
        rows, columns = _GATES[config.pooling] * width, config.window * in_width
        self.weight = nn.Parameter(torch.empty(rows, columns))
        self.bias = nn.Parameter(torch.empty(rows))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        bound = self.weight.shape[1] ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """Zeros."""
        c = torch.zeros(batch, self.width, device=device, dtype=dtype)
        if self.config.window == 1:
            return PooledState(c)
        return WindowedState(c, torch.zeros(batch, self.in_width, device=device, dtype=dtype))

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        """One window of the class's equations."""
        u, reset = x, given.reset
        if self.config.window == 2:
            u = torch.cat([x, shifted(x, state.x, reset)], -1)
        gates = self.linear("weight", u, "bias").chunk(_GATES[self.config.pooling], -1)
        z, (f, *rest) = torch.tanh(gates[0]), [torch.sigmoid(gate) for gate in gates[1:]]
        a, b = 1 - f, (rest[1] if self.config.pooling == "ifo" else f) * z
        kept = given.zoneout.get("c")
        if kept is not None:
            a, b = kept + (1 - kept) * a, (1 - kept) * b
        c, last = diag_scan(a, b, state.c, reset, backend=self.wish, subject=self.name)
        h = rest[0] * c if rest else c
        if given.show is not None:
            # f as in the other cells and the paper, the share that is kept; z is the update gate elsewhere
            names = ("o", "i")
            seen = {"g_pre": gates[0], "f_pre": -gates[1]}
            seen |= {f"{name}_pre": gate for name, gate in zip(names, gates[2:], strict=False)}
            seen |= {"g": z, "f": 1 - f, **dict(zip(names, rest, strict=False))}
            for name, value in seen.items():
                given.show(name, value)
        return h, PooledState(last) if self.config.window == 1 else WindowedState(last, x[:, -1])

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """G N (k I + 1)."""
        return _GATES[config.pooling] * width * (config.window * in_width + 1)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2 G N k I."""
        return 2 * _GATES[config.pooling] * width * config.window * in_width
