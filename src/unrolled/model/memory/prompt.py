"""Prompts that a small recurrent network makes of the segments before."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from unrolled.model.memory.base import Ended, Memory, MemoryConfig

__all__ = ["PromptConfig", "PromptMemory"]


class PromptConfig(MemoryConfig):
    """Options of memory prompts."""

    name: Literal["prompt"] = "prompt"
    vectors: int = Field(default=4, ge=1, le=1 << 12, description="prompt vectors P before a segment")
    hidden: int | None = Field(
        default=None, ge=1, le=1 << 20, description="hidden width of the MLP (absent: the width of the stack)"
    )


class PromptState(NamedTuple):
    """fill, count: see Memory. last: (batch, width), output of the last token of the open segment. h, c: (batch, P I),
    of the LSTM; h is the prompt."""

    fill: Tensor
    count: Tensor
    last: Tensor
    h: Tensor
    c: Tensor


class PromptMemory(Memory):
    r"""Vectors before each segment but the first, made by an MLP and an LSTM of the last outputs of those before
    (Rakotonirina and Baroni 2024, arXiv:2402.15268: MemoryPrompt).

    .. math::
        h_s, c_s = \mathrm{LSTM}(W_2\,\mathrm{relu}(W_1 y_s + b_1) + b_2;\, h_{s-1}, c_{s-1}), \quad
        \text{segment } s + 1: [h_s^1; \dots; h_s^P;\, x_{s+1}]

    y_s is what the stack puts out at the last token of segment s. The paper trains this part alone, around a model
    that stays as it is (``weights.file``, ``train.trainable = ["memory.*"]``), and adds 0.1 times the mean norm of the
    prompt to the loss (``train.objective.cost = 0.1``). Gates in the order i, f, g, o; matrices uniform within
    fan-in^-1/2, biases 0.

    Parameters FO + F + FQ + Q + 8Q² + 4Q with Q = PI, hidden width F and outputs of width O. State O + 2Q numbers a
    row.
    """

    Config = PromptConfig
    State = PromptState
    EXAMPLES = (PromptConfig(segment=5, vectors=2), PromptConfig(segment=3, vectors=1, hidden=3, state="carry"))
    hands = ("cost",)

    def __init__(self, config: Any, in_width: int, reads: Sequence[int], writes: Sequence[int], out_width: int):
        super().__init__(config, in_width, reads, writes, out_width)
        hidden, size = config.hidden or out_width, config.vectors * in_width
        self.up, self.up_bias = nn.Parameter(torch.empty(hidden, out_width)), nn.Parameter(torch.zeros(hidden))
        self.down, self.down_bias = nn.Parameter(torch.empty(size, hidden)), nn.Parameter(torch.zeros(size))
        self.weight_ih, self.weight_hh = (nn.Parameter(torch.empty(4 * size, size)) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(4 * size))
        for weight in (self.up, self.down, self.weight_ih, self.weight_hh):
            if not weight.is_meta:
                nn.init.uniform_(weight, -(weight.shape[1] ** -0.5), weight.shape[1] ** -0.5)

    def begin(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> PromptState:
        """Zeros."""
        last = torch.zeros(batch, self.out_width, device=device, dtype=dtype)
        h = last.new_zeros(batch, self.config.vectors * self.in_width)
        return PromptState(*self.counts(batch, device), last, h, h.clone())

    def prefix(self, memory: PromptState) -> Tensor | None:
        """The prompt, of rows that have read a segment."""
        if not bool((memory.count > 0).any()):
            return None
        return memory.h.unflatten(1, (self.config.vectors, self.in_width))

    def places(self, memory: PromptState) -> Tensor:
        """See :meth:`Memory.places`."""
        return (memory.count > 0) * self.config.vectors

    def observe(self, memory: PromptState, x: Tensor, y: Tensor) -> PromptState:
        """Keeps the last output."""
        return memory._replace(last=y[:, -1])

    def update(self, memory: PromptState, ended: Ended) -> PromptState:
        """A step of the LSTM."""
        given = linear(relu(linear(memory.last, self.up, self.up_bias)), self.down, self.down_bias)
        gates = linear(given, self.weight_ih, self.bias) + linear(memory.h, self.weight_hh)
        i, f, g, o = gates.chunk(4, -1)
        c = torch.sigmoid(f) * memory.c + torch.sigmoid(i) * torch.tanh(g)
        return memory._replace(last=torch.zeros_like(memory.last), h=torch.sigmoid(o) * torch.tanh(c), c=c)

    def cost(self, memory: PromptState) -> Tensor:
        """The mean norm of the prompt's vectors."""
        # smooth where it is 0, before the first segment has ended
        squares = memory.h.unflatten(1, (self.config.vectors, self.in_width)).square().sum(-1)
        return torch.where(squares > 0, squares, 1.0).sqrt().mul(squares > 0).mean(1)

    @property
    def extra_places(self) -> int:
        """P."""
        return self.config.vectors
