"""Attention to keys that every token sees, and the softmax over what several attentions see."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Part", "always", "union"]

Part = tuple[Tensor, Tensor]
"""What attention gives (batch, time, heads, size), and the logarithm of its sum of weights (batch, time, heads)."""


def always(q: Tensor, keys: Tensor, values: Tensor) -> Part:
    """Of keys and values (m, heads, size) that every token sees."""
    scores = (q.transpose(1, 2) @ keys.permute(1, 2, 0)).transpose(1, 2) * q.shape[-1] ** -0.5
    y = (scores.softmax(-1).transpose(1, 2) @ values.transpose(0, 1)).transpose(1, 2)
    return y, scores.logsumexp(-1)


def union(parts: Sequence[Part]) -> Tensor:
    """The softmax over the keys of all parts together."""
    outputs, sums = (torch.stack(one) for one in zip(*parts, strict=True))
    return (torch.softmax(sums, 0).unsqueeze(-1) * outputs).sum(0)
