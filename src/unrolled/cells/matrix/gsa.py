"""Gated slot attention."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, silu

from unrolled.cells.matrix.base import SMALL_GAIN, HeadsConfig, MatrixCell, fill, xavier
from unrolled.cells.mixer import Given
from unrolled.cells.parts.heads import HeadNorm, cut_heads
from unrolled.kernels.matrix_scan import matrix_scan

__all__ = ["GSA", "GSAConfig"]


class GSAConfig(HeadsConfig):
    """Options of gated slot attention."""

    name: Literal["gsa"] = "gsa"
    slots: int = Field(default=64, ge=1, le=1 << 16, description="memory slots of a head")
    temperature: float = Field(
        default=8.0, gt=0, description="divides the logarithm of the decays; larger keeps longer"
    )


class SlotState(NamedTuple):
    """keys: (batch, heads, keys, slots). values: (batch, heads, slots, values)."""

    keys: Tensor
    values: Tensor


class GSA(MatrixCell):
    r"""Gated slot attention (Zhang et al. 2024, arXiv:2409.07146): softmax attention over slots that are written and
    forgotten by gates.

    .. math::
        q, k, v &= \mathrm{SiLU}(W_q x_t), \mathrm{SiLU}(W_k x_t), \mathrm{SiLU}(W_v x_t), \quad
        \alpha = \sigma(W_\alpha x_t)^{1/\tau} \in \mathbb{R}^M \\
        \tilde{K}_t &= \mathrm{Diag}(\alpha) \tilde{K}_{t-1} + (1 - \alpha) k^\top, \quad
        \tilde{V}_t = \mathrm{Diag}(\alpha) \tilde{V}_{t-1} + (1 - \alpha) v^\top \\
        y_t &= W_o\,\mathrm{RMSNorm}(\mathrm{SiLU}(\tilde{V}_t^\top \mathrm{softmax}(K^{-1/2} \tilde{K}_t q)))

    Two passes of the same operation with a softmax between them: the first decays by value, the second by key. τ = 8.
    The norm is over the whole width. Xavier start with gain 2^-2.5, as flash-linear-attention. The blocks of ``weight``
    are q, k, v (N each), α (H M).

    Parameters 3NI + HMI + N² + N.
    """

    Config = GSAConfig
    State = SlotState
    EXAMPLES = (GSAConfig(heads=2, slots=3), GSAConfig(heads=1, slots=5, temperature=1.0))
    EQUATION = "K, V slots = α*slots + (1-α) k', v'; y = V' softmax(K q)"
    matrix_fields = ("keys", "values")

    def __init__(self, in_width: int, width: int, config: GSAConfig):
        super().__init__(in_width, width, config)
        self.weight = nn.Parameter(torch.empty(3 * width + config.heads * config.slots, in_width))
        self.norm = HeadNorm(1, width)
        self.out = nn.Parameter(torch.empty(width, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrices anew."""
        fill(xavier(SMALL_GAIN), [self.weight, self.out])

    @classmethod
    def head_sizes(cls, config: Any, width: int) -> tuple[int, int, int]:
        """N / H keys and values, for each slot."""
        return config.heads, width // config.heads, width // config.heads

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> SlotState:
        """Zeros."""
        heads, keys, values = self.head_sizes(self.config, self.width)
        slots, place = self.config.slots, {"device": device, "dtype": dtype}
        return SlotState(
            torch.zeros(batch, heads, keys, slots, **place), torch.zeros(batch, heads, slots, values, **place)
        )

    def mix(self, x: Tensor, state: SlotState, given: Given) -> tuple[Tensor, SlotState]:
        """One window of the class's equations."""
        heads, keys, _ = self.head_sizes(self.config, self.width)
        sizes = (self.width, self.width, self.width, heads * self.config.slots)
        q, k, v, pre = (cut_heads(part, heads) for part in self.linear("weight", x).split(sizes, -1))
        decay = logsigmoid(pre) / self.config.temperature
        written = -torch.expm1(decay)
        options: dict[str, Any] = {"reset": given.reset, "backend": self.wish, "subject": self.name}
        scores, slot_keys = matrix_scan(
            silu(q), silu(k), written, decay, by_value=True, scale=keys**-0.5, state=state.keys, **options
        )
        read = torch.softmax(scores, -1)
        o, slot_values = matrix_scan(read, written, silu(v), decay, state=state.values, **options)
        y = self.normed(self.norm, silu(o).flatten(2).unsqueeze(2))
        if given.show is not None:
            given.show("a", decay.exp().flatten(2))
        return self.linear("out", y), SlotState(slot_keys, slot_values)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """3NI + HMI + N² + N."""
        return in_width * (3 * width + config.heads * config.slots) + width * width + width

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """6NI + 2HMI + 2N², and 4MN to read the slots."""
        products = in_width * (3 * width + config.heads * config.slots) + width * width
        return 2 * products + 4 * config.slots * width
