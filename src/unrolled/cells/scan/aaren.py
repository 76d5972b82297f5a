"""Attention as a recurrent network."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, ParameterRule
from unrolled.cells.mixer import Given, MixerCell
from unrolled.kernels.softmax_scan import Weighted, empty, softmax_scan

__all__ = ["Aaren", "AarenConfig"]


class AarenConfig(CellConfig):
    """Options of Aaren."""

    name: Literal["aaren"] = "aaren"
    heads: int = Field(default=4, ge=1, description="queries, each of which reads its part of keys and values")


class AttendedState(NamedTuple):
    """top, u: (batch, heads), the largest score and the sum of weights in units of e^top. w: (batch, width), the
    weighted sum of values."""

    top: Tensor
    u: Tensor
    w: Tensor


class Aaren(MixerCell):
    r"""Attention as a recurrent network (Feng et al. 2024, arXiv:2405.13956): one query a head reads every prefix.

    .. math::
        k_t &= W_k x_t + b_k, \quad v_t = W_v x_t + b_v, \quad s_t = q^\top k_t / \sqrt{d} \\
        h_t &= W_o \frac{\sum_{i \le t} e^{s_i} v_i}{\sum_{i \le t} e^{s_i}} + b_o

    for each head, of size d. The query is the layer's own and starts normal with deviation 0.02; matrices as those of
    ``torch.nn.Linear``. The state is of one size for any length. ``weight`` and ``bias`` hold k, then v. The published
    block is that of a Transformer: a residual stack with layer norms and an MLP. The authors' code was not at hand.

    Parameters N + 2N(I + 1) + N(N + 1).
    """

    Config = AarenConfig
    State = AttendedState
    EXAMPLES = (AarenConfig(heads=2), AarenConfig(heads=1))
    EQUATION = "h = W_o(mean of v by e^(q k))"
    operation = "softmax_scan"
    parameter_rules = {"query": ParameterRule(decay=False, drawn=False)}

    def __init__(self, in_width: int, width: int, config: AarenConfig):
        super().__init__(in_width, width, config)
        self.query = nn.Parameter(torch.empty(width))
        self.weight, self.bias = nn.Parameter(torch.empty(2 * width, in_width)), nn.Parameter(torch.empty(2 * width))
        self.out, self.out_bias = nn.Parameter(torch.empty(width, width)), nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        nn.init.normal_(self.query, std=0.02)
        for weight, bias in ((self.weight, self.bias), (self.out, self.out_bias)):
            bound = weight.shape[1] ** -0.5
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """Heads."""
        return config.heads

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> AttendedState:
        """Nothing was seen."""
        start = empty(torch.zeros(batch, self.config.heads, 1, device=device, dtype=dtype))
        return AttendedState(start.m, start.u, start.u.new_zeros(batch, self.width))

    def mix(self, x: Tensor, state: AttendedState, given: Given) -> tuple[Tensor, AttendedState]:
        """One window of the class's equations."""
        heads = (self.config.heads, self.width // self.config.heads)
        k, v = (part.unflatten(-1, heads) for part in self.linear("weight", x, "bias").chunk(2, -1))
        scores = (k * (self.query.view(heads) * heads[1] ** -0.5)).sum(-1)
        start = Weighted(state.top, state.u, state.w.unflatten(-1, heads))
        y, last = softmax_scan(scores, v, None, None, start, given.reset, self.wish, self.name)
        h, new = self.linear("out", y.flatten(2), "out_bias"), AttendedState(last.m, last.u, last.w.flatten(1))
        if given.show is not None:
            for name, value in {"g": v.flatten(2)}.items():
                given.show(name, value)
        return h, new

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """N + 2N(I + 1) + N(N + 1)."""
        return width * (1 + 2 * (in_width + 1) + width + 1)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """4NI + 2N²."""
        return 4 * width * in_width + 2 * width * width
