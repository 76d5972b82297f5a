"""Attention of tokens, or of slots, to vectors of a memory."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

__all__ = ["Attend"]


class Attend(nn.Module):
    """W_o softmax(q'k / sqrt(d)) v with queries of one width and keys and values of another, in several heads.

    Parameters 2N_q N + 2N_m N where N = N_q is the width of heads together.
    """

    def __init__(self, width: int, memory: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.out = (nn.Parameter(torch.empty(width, width)) for _ in range(2))
        self.key, self.value = (nn.Parameter(torch.empty(width, memory)) for _ in range(2))
        for weight in self.parameters():
            if not weight.is_meta:
                nn.init.uniform_(weight, -(weight.shape[1] ** -0.5), weight.shape[1] ** -0.5)

    def forward(self, x: Tensor, memory: Tensor, level: Tensor | None = None, there: Tensor | None = None) -> Tensor:
        """(batch, time, width) of x (batch, time, width) and memory (batch, slots, its width).

        Args:
            level: (batch, slots), added to all scores of a slot. there: boolean (batch, slots), which of them there are
                (absent: all). Rows without any read 0.
        """

        def heads(weight: Tensor, v: Tensor) -> Tensor:
            return linear(v, weight).unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q, k, v = heads(self.query, x), heads(self.key, memory), heads(self.value, memory)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if level is not None:
            scores = scores + level[:, None, None]
        if there is None:
            weights = scores.softmax(-1)
        else:
            some = there.any(1, keepdim=True)
            scores = scores.masked_fill((some & ~there)[:, None, None], -torch.inf)
            weights = scores.softmax(-1) * some[:, None, None]
        return linear((weights @ v).transpose(1, 2).flatten(2), self.out)
