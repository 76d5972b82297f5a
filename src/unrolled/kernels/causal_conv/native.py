"""The depthwise convolution in C++ on a CPU: everything is read once and written once, activation included."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.cpu import library, why_no_library

__all__ = ["conv", "refuse"]

# A thread has at least so many columns.
_COLUMNS_PER_THREAD = 64


def refuse(x: Tensor, weight: Tensor, *others: Any) -> str | None:
    """The reason why this backend cannot serve the call, or None."""
    if weight.dim() != 2:
        return "it has depthwise weights alone"
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return "it computes on a CPU in float32 and float64"
    return why_no_library()


def _threads(columns: int) -> int:
    return max(1, min(torch.get_num_threads(), columns // _COLUMNS_PER_THREAD))


def _in_order(x: Tensor) -> Tensor:
    """Columns side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        taps: Tensor,
        bias: Tensor | None,
        cache: Tensor,
        reach: Tensor | None,
        dilation: int,
        silu: bool,
    ) -> Tensor:
        x, taps, cache = _in_order(x), taps.contiguous(), cache.contiguous()
        bias, reach = (None if part is None else part.contiguous() for part in (bias, reach))
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        ctx.save_for_backward(x, taps, bias, cache, reach)
        ctx.options = (*x.shape, len(taps), dilation, int(silu))
        library().call(
            "conv_forward", x.dtype, x, x.stride(0), x.stride(1), taps, bias, cache, reach, *ctx.options, y,
            _threads(x.shape[2]),
        )  # fmt: skip
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, taps, bias, cache, reach = ctx.saved_tensors
        grad, columns = _in_order(grad), x.shape[2]
        grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        grad_cache, sums = torch.zeros_like(cache), x.new_zeros(len(x), len(taps) + 1, columns)
        library().call(
            "conv_backward", x.dtype, x, x.stride(0), x.stride(1), taps, bias, cache, reach, *ctx.options, grad,
            grad.stride(0), grad.stride(1), grad_x, grad_cache, sums, _threads(columns),
        )  # fmt: skip
        total = sums.sum(0)
        return grad_x, total[:-1], None if bias is None else total[-1], grad_cache, None, None, None


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
    return _Conv.apply(x, weight.t().flip(0), bias, cache, reach, dilation, activation == "silu")  # type: ignore[return-value]
