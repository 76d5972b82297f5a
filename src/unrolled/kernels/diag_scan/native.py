"""The scan in C++ on a CPU: everything is read once and written once."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.cpu import library, why_no_library

__all__ = ["refuse", "scan"]

# A thread has at least so many columns.
_COLUMNS_PER_THREAD = 64


def refuse(a: Tensor, b: Tensor, *others: Any) -> str | None:
    """The reason why this backend cannot serve the call, or None."""
    if b.device.type != "cpu" or b.dtype not in (torch.float32, torch.float64):
        return "it computes on a CPU in float32 and float64"
    return why_no_library()


def _threads(columns: int) -> int:
    return max(1, min(torch.get_num_threads(), columns // _COLUMNS_PER_THREAD))


def _in_order(x: Tensor) -> Tensor:
    """Columns side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


class _Scan(torch.autograd.Function):
    """Time-major: a, b (time, batch, width), any strides; reset (time, batch) or None; h0, initial (batch, width)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, h0: Tensor, reset: Tensor | None, initial: Tensor) -> Tensor:
        a, b, h0, initial = _in_order(a), _in_order(b), h0.contiguous(), _in_order(initial)
        reset = None if reset is None else reset.contiguous()
        h = torch.empty_like(b, memory_format=torch.contiguous_format)
        library().call(
            "scan_forward", b.dtype, a, a.stride(0), a.stride(1), b, b.stride(0), b.stride(1), h0, initial,
            initial.stride(0), reset, h, *h.shape, _threads(h.shape[2]),
        )  # fmt: skip
        ctx.save_for_backward(a, h, h0, reset, initial)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        a, h, h0, reset, initial = ctx.saved_tensors
        grad = _in_order(grad)
        b_grad, h0_grad = torch.empty_like(h), torch.zeros_like(h0)
        a_grad = torch.empty_like(h) if ctx.needs_input_grad[0] else None
        initial_grad = torch.zeros_like(h0) if ctx.needs_input_grad[4] else None
        library().call(
            "scan_backward", h.dtype, a, a.stride(0), a.stride(1), h, h0, initial, initial.stride(0), reset, grad,
            grad.stride(0), grad.stride(1), a_grad, b_grad, h0_grad, initial_grad, *h.shape, _threads(h.shape[2]),
        )  # fmt: skip
        return a_grad, b_grad, h0_grad, None, initial_grad


def scan(a: Tensor, b: Tensor, h0: Tensor, reset: Tensor | None, initial: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`unrolled.kernels.diag_scan.reference.scan`."""
    flags = None if reset is None else reset.t()
    h: Tensor = _Scan.apply(a.transpose(0, 1), b.transpose(0, 1), h0, flags, initial)  # type: ignore[assignment]
    return h.transpose(0, 1), h[-1]
