"""The plain sum over taps that defines the operation."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import silu

from unrolled.kernels.linear import linear

__all__ = ["conv", "lagged"]


def lagged(x: Tensor, taps: int, cache: Tensor, reach: Tensor | None, dilation: int) -> Iterator[Tensor]:
    """(batch, time, width) for each tap, oldest first: the inputs so many steps before; zeros where not seen."""
    seen = torch.cat([cache, x], 1)
    for lag in range((taps - 1) * dilation, -1, -dilation):
        begin = cache.shape[1] - lag
        part = seen[:, begin : begin + x.shape[1]]
        yield part if reach is None else part.masked_fill((reach < lag).unsqueeze(-1), 0)


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cache: Tensor,
    reach: Tensor | None,
    dilation: int,
    activation: str | None,
    precision: str,
) -> Tensor:
    """y(t) = bias + sum over taps of weight(tap) x(t - lag), of which the activation.

    Args:
        x: (batch, time, width). weight: (width, k) or (out, width / groups, k). bias: (out,) or None.
        cache: (batch, (k-1) * dilation, width). reach: (batch, time), how many steps back are seen, or None for all.
        activation: ``silu`` or None. precision: of the products with matrices.
    Returns:
        (batch, time, out).
    """
    y = x.new_zeros(*x.shape[:2], len(weight)) if bias is None else bias.expand(*x.shape[:2], -1)
    for tap, part in zip(weight.unbind(-1), lagged(x, weight.shape[-1], cache, reach, dilation), strict=True):
        if weight.dim() == 2:
            y = y + tap * part
        else:
            y = y + linear(part, tap.unflatten(0, (x.shape[2] // tap.shape[1], -1)), None, precision, "reference")
    return y if activation is None else silu(y)
