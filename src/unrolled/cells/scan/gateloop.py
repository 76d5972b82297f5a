"""GateLoop: linear attention with a complex, data-controlled decay."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from unrolled.cells.base import CellConfig
from unrolled.cells.mixer import Given, MixerCell
from unrolled.kernels.matrix_scan import complex_scan
from unrolled.kernels.silu_gate import silu_gate

__all__ = ["GateLoop", "GateLoopConfig"]


class GateLoopConfig(CellConfig):
    """Options of GateLoop."""

    name: Literal["gateloop"] = "gateloop"
    heads: int = Field(default=4, ge=1, description="heads, each with a matrix of its own")
    gate: Literal["channel", "head"] = Field(default="channel", description="one decay for each key, or for each head")


class TurningState(NamedTuple):
    """s: (batch, 2 heads K V), the real parts of the heads' matrices (keys, values), then the imaginary ones."""

    s: Tensor


class GateLoop(MixerCell):
    r"""GateLoop (Katsch 2023, arXiv:2311.01927): a matrix state whose decay and turn depend on the token.

    .. math::
        [q_t, k_t, v_t, g_t] &= W x_t, \quad a_t = \sigma(\alpha_t) e^{i \varphi_t}, \quad
        [\alpha_t, \varphi_t] = W_a x_t + b_a \\
        S_t &= a_t S_{t-1} + k_t v_t^\top, \quad o_t = \mathrm{Re}(S_t^\top q_t) / \sqrt{K} \\
        h_t &= W_o (o_t \odot \mathrm{SiLU}(g_t))

    for each head, with K keys and as many values; a is one number for each key, or for each head. Matrices start as
    those of ``torch.nn.Linear``, b_α at 3, so that the state is kept for some twenty tokens, and b_φ at 0; the paper
    gives neither. A widespread package bounds \|a\| to [1/2, 1) and scales the gradient into a; this cell does not.

    Parameters 4NI + 2G(I + 1) + N², with G = N, or with one decay a head the heads.
    """

    Config = GateLoopConfig
    State = TurningState
    EXAMPLES = (GateLoopConfig(heads=2), GateLoopConfig(heads=1, gate="head"))
    EQUATION = "S = a S + k v', a complex; h = W(Re(S' q) * silu(g))"
    operation = "matrix_scan"

    def __init__(self, in_width: int, width: int, config: GateLoopConfig):
        super().__init__(in_width, width, config)
        gates = self._gates(config, width)
        self.weight = nn.Parameter(torch.empty(4 * width, in_width))
        self.weight_a, self.bias_a = (
            nn.Parameter(torch.empty(2 * gates, in_width)),
            nn.Parameter(torch.empty(2 * gates)),
        )
        self.out = nn.Parameter(torch.empty(width, width))
        self.reset_parameters()

    @staticmethod
    def _gates(config: GateLoopConfig, width: int) -> int:
        return width if config.gate == "channel" else config.heads

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        for matrix in (self.weight, self.weight_a, self.out):
            nn.init.uniform_(matrix, -(matrix.shape[1] ** -0.5), matrix.shape[1] ** -0.5)
        self.bias_a.zero_()
        self.bias_a[: len(self.bias_a) // 2] = 3.0

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """Heads."""
        return config.heads

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> TurningState:
        """Zeros."""
        numbers = 2 * self.width * (self.width // self.config.heads)
        return TurningState(torch.zeros(batch, numbers, device=device, dtype=dtype))

    def mix(self, x: Tensor, state: TurningState, given: Given) -> tuple[Tensor, TurningState]:
        """One window of the class's equations."""
        heads, size = self.config.heads, self.width // self.config.heads
        *qkv, g = self.linear("weight", x).chunk(4, -1)
        q, k, v = (part.unflatten(-1, (heads, size)) for part in qkv)
        into_f, phase = self.linear("weight_a", x, "bias_a").chunk(2, -1)
        decay = logsigmoid(into_f)
        if given.reset is not None:  # nothing is there to be decayed or turned
            decay, phase = (part.masked_fill(given.reset.unsqueeze(-1), 0) for part in (decay, phase))
        if self.config.gate == "channel":
            decay, turn = (part.unflatten(-1, (heads, size)) for part in (decay, phase))
        else:
            turn = phase
        start = torch.complex(*state.s.chunk(2, -1)).view(-1, heads, size, size)
        o, last = complex_scan(
            q, k, v, decay, turn, scale=size**-0.5, state=start, reset=given.reset, backend=self.wish, subject=self.name
        )
        h = self.linear("out", silu_gate(o.flatten(2), g, None, None, self.wish_for("silu_gate"), self.name))
        flat = last.flatten(1)
        new = TurningState(torch.cat([flat.real, flat.imag], -1))
        if given.show is not None:
            for name, value in {"f_pre": into_f, "f": torch.sigmoid(into_f)}.items():
                given.show(name, value)
        return h, new

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """4NI + 2G(I + 1) + N²."""
        return 4 * width * in_width + 2 * cls._gates(config, width) * (in_width + 1) + width * width

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """8NI + 4GI + 2N², and 2NK of the read matrices."""
        read = 2 * width * (width // config.heads)
        return 8 * width * in_width + 4 * cls._gates(config, width) * in_width + 2 * width * width + read
