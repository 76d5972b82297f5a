"""Attention beside a learner: over the last tokens or those of the open segment, and over what is always there."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unrolled.cells.parts.places import angles, rotate
from unrolled.cells.parts.ring import Turned
from unrolled.kernels.bias_attention import bias_attention

__all__ = ["always", "turned_by", "union", "within"]

Part = tuple[Tensor, Tensor]
"""What attention gives (batch, time, heads, size), and the logarithm of its sum of weights (batch, time, heads)."""


def turned_by(places: Tensor, *parts: Tensor) -> list[Tensor]:
    """Parts (batch, time, heads, size) turned by the rotary angles of their places, int64 (time,) or (batch, time)."""
    cos, sin = angles(places.double(), parts[0].shape[-1], 10000.0)
    cos, sin = (x.to(parts[0]).unsqueeze(-2) for x in (cos, sin))
    return [rotate(part, cos, sin) for part in parts]


def within(q: Tensor, keys: Tensor, values: Tensor, turned: Turned, **options: Any) -> Part:
    """Of the joined keys and values of a ring, to those that each token sees."""
    y, lse = bias_attention(q, keys, values, turned.first, lse=True, **options)
    assert lse is not None
    return y, lse


def always(q: Tensor, keys: Tensor, values: Tensor) -> Part:
    """Of keys and values (m, heads, size) that every token sees."""
    scores = (q.transpose(1, 2) @ keys.permute(1, 2, 0)).transpose(1, 2) * q.shape[-1] ** -0.5
    y = (scores.softmax(-1).transpose(1, 2) @ values.transpose(0, 1)).transpose(1, 2)
    return y, scores.logsumexp(-1)


def union(parts: Sequence[Part]) -> Tensor:
    """The softmax over the keys of all parts together."""
    outputs, sums = (torch.stack(one) for one in zip(*parts, strict=True))
    return (torch.softmax(sums, 0).unsqueeze(-1) * outputs).sum(0)
