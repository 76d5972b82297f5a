"""Attention beside a learner: over the last tokens or those of the open segment."""

from typing import Any

from torch import Tensor

from unrolled.cells.parts.places import angles, rotate
from unrolled.cells.parts.ring import Turned
from unrolled.cells.parts.union import Part
from unrolled.kernels.bias_attention import bias_attention

__all__ = ["turned_by", "within"]


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
