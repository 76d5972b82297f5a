"""By torch's operations on any device: its own convolution, or one product of all taps."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv1d, silu

from unrolled.kernels.causal_conv.reference import lagged
from unrolled.kernels.linear import linear

__all__ = ["conv", "refuse"]


def refuse(
    x: Tensor, weight: Tensor, bias: Any = None, cache: Any = None, reach: Tensor | None = None, *others: Any
) -> str | None:
    """The reason why this backend cannot serve the call, or None."""
    return "with depthwise weights it takes no resets" if weight.dim() == 2 and reach is not None else None


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
    """See :func:`unrolled.kernels.causal_conv.reference.conv`."""
    if weight.dim() == 2:
        seen = torch.cat([cache, x], 1).transpose(1, 2)
        y = conv1d(seen, weight.unsqueeze(1), bias, dilation=dilation, groups=len(weight)).transpose(1, 2)
    else:
        # the inputs of all taps side by side within each group, so that one product serves
        parts = lagged(x, weight.shape[2], cache, reach, dilation)
        side = torch.cat([part.unflatten(-1, (-1, weight.shape[1])) for part in parts], -1)
        matrix = weight.transpose(1, 2).flatten(1)
        groups = side.shape[2]
        y = linear(
            side.flatten(2),
            matrix if groups == 1 else matrix.unflatten(0, (groups, -1)),
            bias,
            precision,
            subject="convolution",
        )
    return y if activation is None else silu(y)
