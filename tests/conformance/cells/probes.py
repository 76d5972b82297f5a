"""Mixers of three kinds, as a user would write them: a scan, a matrix state, a window with keys, values and a count.

They show that the contract and the suite suit them; none of them is tuned.
"""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells import CellConfig, Given, MixerCell
from unrolled.cells.base import HiddenState
from unrolled.kernels.diag_scan import diag_scan

__all__ = ["PROBES", "LinearAttention", "MinGRU", "WindowAttention"]


class MinGRUConfig(CellConfig):
    name: Literal["probe_scan"] = "probe_scan"


class MinGRU(MixerCell):
    """h(t) = (1 - z) h(t-1) + z n with z and n of the input alone (Feng et al. 2024)."""

    Config, State, EXAMPLES = MinGRUConfig, HiddenState, (MinGRUConfig(),)
    EQUATION = "h = (1-z)*h + z*n"
    operation = "diag_scan"

    def __init__(self, in_width: int, width: int, config: MinGRUConfig):
        super().__init__(in_width, width, config)
        self.weight = nn.Parameter(torch.randn(2 * width, in_width) * 0.5)
        self.bias = nn.Parameter(torch.zeros(2 * width))

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        z, n = self.linear("weight", x, "bias").chunk(2, -1)
        z = torch.sigmoid(z)
        h, last = diag_scan(1 - z, z * n, state.h, given.reset, backend=self.wish, subject=self.name)
        return h, HiddenState(last)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        return 2 * width * (in_width + 1)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        return 4 * width * in_width


class LinearAttentionConfig(CellConfig):
    name: Literal["probe_matrix"] = "probe_matrix"
    heads: int = Field(default=2, ge=1, description="heads, each with a matrix of its own")
    decay: float = Field(default=0.9, gt=0, le=1, description="share of the matrix that is kept at a step")


class MatrixState(NamedTuple):
    """s: (batch, heads, keys, values)."""

    s: Tensor


class LinearAttention(MixerCell):
    """S(t) = a S(t-1) + k v^T, y = S^T q, for each head; its loop over time defines it."""

    Config, State = LinearAttentionConfig, MatrixState
    EXAMPLES = (LinearAttentionConfig(), LinearAttentionConfig(heads=3, decay=0.5))
    EQUATION = "S = a*S + k v'; y = S' q"
    operation = "linear"

    def __init__(self, in_width: int, width: int, config: LinearAttentionConfig):
        super().__init__(in_width, width, config)
        self.weight = nn.Parameter(torch.randn(3 * width, in_width) * in_width**-0.5)

    def backends(self) -> list[str]:
        return ["window", "reference"]

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        return config.heads

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> MatrixState:
        size = self.width // self.config.heads
        return MatrixState(torch.zeros(batch, self.config.heads, size, size, device=device, dtype=dtype))

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        size = self.width // self.config.heads
        q, k, v = (part.unflatten(-1, (-1, size)) for part in self.linear("weight", x).chunk(3, -1))
        s, outputs = state.s, []
        resets = [None] * x.shape[1] if given.reset is None else given.reset.unbind(1)
        for q_t, k_t, v_t, reset in zip(q.unbind(1), k.unbind(1), v.unbind(1), resets, strict=True):
            if reset is not None:
                s = s.masked_fill(reset.view(-1, 1, 1, 1), 0)
            s = self.config.decay * s + k_t.unsqueeze(-1) * v_t.unsqueeze(-2)
            outputs.append((s * q_t.unsqueeze(-1)).sum(-2).flatten(1))
        y = torch.stack(outputs, 1)
        return y, MatrixState(s)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        return 3 * width * in_width

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        return 6 * width * in_width


class WindowAttentionConfig(CellConfig):
    name: Literal["probe_window"] = "probe_window"
    length: int = Field(default=3, ge=1, description="tokens that are attended to, the present one among them")


class WindowState(NamedTuple):
    """keys, values: (batch, length, width), newest last. fill: (batch,) how many are filled, from the last reset."""

    keys: Tensor
    values: Tensor
    fill: Tensor


class WindowAttention(MixerCell):
    """Causal softmax attention over the last tokens, with a bias for each distance, beside a linear map."""

    Config, State = WindowAttentionConfig, WindowState
    EXAMPLES = (WindowAttentionConfig(), WindowAttentionConfig(length=2))
    EQUATION = "y = softmax(q k') v + u, over the last tokens"
    operation = "linear"

    def __init__(self, in_width: int, width: int, config: WindowAttentionConfig):
        super().__init__(in_width, width, config)
        self.weight = nn.Parameter(torch.randn(4 * width, in_width) * in_width**-0.5)
        self.distance = nn.Parameter(torch.zeros(config.length))

    def backends(self) -> list[str]:
        return ["window", "reference"]

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> WindowState:
        shape = batch, self.config.length, self.width
        keys, values = (torch.zeros(shape, device=device, dtype=dtype) for _ in range(2))
        return WindowState(keys, values, torch.zeros(batch, device=device, dtype=torch.int64))

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        length = self.config.length
        q, k, v, u = self.linear("weight", x).chunk(4, -1)
        keys, values = torch.cat([state.keys, k], 1), torch.cat([state.values, v], 1)
        text = x.new_zeros(x.shape[:2], dtype=torch.int64) if given.reset is None else given.reset.cumsum(1)
        texts = torch.cat([text.new_zeros(len(x), length), text], 1)
        old = torch.arange(length, device=x.device) >= length - state.fill.unsqueeze(1)
        filled = torch.cat([old, torch.ones_like(text, dtype=torch.bool)], 1)
        # the tokens t + 1 ... t + length of the whole are those that token t may see
        seen_k, seen_v = (part.unfold(1, length, 1)[:, 1:] for part in (keys, values))
        seen = filled.unfold(1, length, 1)[:, 1:] & (texts.unfold(1, length, 1)[:, 1:] == text.unsqueeze(-1))
        scores = ((q.unsqueeze(-1) * seen_k).sum(2) + self.distance).masked_fill(~seen, -torch.inf)
        y = (torch.softmax(scores, -1).unsqueeze(2) * seen_v).sum(-1) + u
        kept = filled[:, -length:] & (texts[:, -length:] == texts[:, -1:])
        # what a reset empties is zero, as at the start: one state has one form
        keys, values = (part[:, -length:] * kept.unsqueeze(-1) for part in (keys, values))
        return y, WindowState(keys, values, kept.sum(1))

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        return 4 * width * in_width + config.length

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        return 8 * width * in_width


PROBES = (MinGRU, LinearAttention, WindowAttention)
