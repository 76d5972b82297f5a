"""``rms_norm``: x / sqrt(mean(x^2) + epsilon) * weight over the last dimension (Zhang and Sennrich 2019).

Backends: ``native`` (in C++ on a CPU, one pass forward and one back, where torch makes some fifteen) and
``reference`` (``torch.nn.functional.rms_norm``, which defines the operation).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.cpu import library, why_no_library
from unrolled.kernels.dispatch import Backend, Operation, Sizes, choose

__all__ = ["BACKENDS", "OPERATION", "rms_norm"]

_GROUP = 64  # as in csrc/norm.cpp


def _refuse(x: Tensor, weight: Tensor, epsilon: float) -> str | None:
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64) or weight.dtype != x.dtype:
        return "it computes on a CPU in float32 and float64"
    return why_no_library()


def _rows_in_memory(x: Tensor, like: Tensor | None = None) -> Tensor:
    """x with its rows one after another in memory, in any order; with the strides of ``like`` where that is given."""
    if like is not None:
        return x if x.stride() == like.stride() else torch.empty_like(like).copy_(x)
    # a dense tensor keeps its strides in a copy
    return x if x.stride(-1) == 1 and torch.empty_like(x).stride() == x.stride() else x.contiguous()


def _threads(rows: int) -> int:
    return max(1, min(torch.get_num_threads(), rows // _GROUP))


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        x, weight = _rows_in_memory(x), weight.contiguous()
        y, n = torch.empty_like(x), x.shape[-1]
        rows = x.numel() // n
        library().call("rms_forward", x.dtype, rows, n, x, weight, epsilon, y, _threads(rows))
        ctx.save_for_backward(x, weight)
        ctx.epsilon = epsilon
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        grad, n = _rows_in_memory(grad, like=x), x.shape[-1]
        rows = x.numel() // n
        grad_x, sums = torch.empty_like(x), x.new_zeros(-(-rows // _GROUP), n)
        given = (rows, n, x, weight, ctx.epsilon, grad, grad_x, sums, _threads(rows))
        library().call("rms_backward", x.dtype, *given)
        return grad_x, sums.sum(0), None


def _native(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return _RmsNorm.apply(x, weight, epsilon)  # type: ignore[return-value]


def _reference(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return torch.nn.functional.rms_norm(x, weight.shape, weight, epsilon)


BACKENDS = {
    backend.name: backend
    for backend in (Backend("native", _refuse, _native), Backend("reference", lambda *_: None, _reference))
}


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, backend: str = "auto", subject: str = "norm") -> Tensor:
    """Normalise the rows of x.

    Args:
        x: (..., N), at least one row. weight: (N,).
        backend: ``auto`` or a backend. subject: who asks, for the record of choices.
    Returns:
        (..., N), with the strides of x where its rows lie one after another.
    Raises:
        UsageError: an unknown backend, or one that cannot serve here.
    """
    return choose("rms_norm", BACKENDS, backend, subject, x, weight, epsilon).run(x, weight, epsilon)


def _amount(sizes: Sizes, backward: bool) -> int:
    """Bytes of one pass: read x, write y; then read x and the gradient, write that of x."""
    return (5 if backward else 2) * 4 * sizes.width * sizes.batch * sizes.window


def _inputs(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    return {"x": draw("x", sizes.batch, sizes.window, sizes.width), "weight": 1 + 0.1 * draw("weight", sizes.width)}


def _call(given: Mapping[str, Tensor], backend: str, precision: str) -> tuple[Tensor, ...]:
    return (rms_norm(given["x"], given["weight"], 1e-6, backend),)


OPERATION = Operation(
    "rms_norm", "x / sqrt(mean(x^2) + epsilon) * weight", BACKENDS, "bytes", amount=_amount, inputs=_inputs, call=_call
)
