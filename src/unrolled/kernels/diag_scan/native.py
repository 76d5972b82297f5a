"""The scan in C++ on a CPU: everything is read once and written once."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.cpu import library, why_no_library

__all__ = ["refuse", "scan"]

# A thread has at least so many numbers of a row.
_PER_THREAD = 64
_TYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def refuse(a: Tensor, b: Tensor, *others: Any) -> str | None:
    """The reason why this backend cannot serve the call, or None."""
    if b.device.type != "cpu" or b.dtype not in _TYPES:
        return "it computes on a CPU, in float32, float64 and complex numbers of these"
    return why_no_library()


def _threads(numbers: int) -> int:
    return max(1, min(torch.get_num_threads(), numbers // _PER_THREAD))


def _in_order(x: Tensor) -> Tensor:
    """Columns side by side, in memory what they are: no conjugate or negative that is still to be taken."""
    x = x.resolve_conj().resolve_neg()
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _numbers(x: Tensor) -> int:
    """Real numbers in one of x's."""
    return 2 if x.is_complex() else 1


def _steps(x: Tensor, shape: torch.Size) -> tuple[int, int]:
    """Strides of a step and of a row of x, broadcast to a shape (time, batch, ...), in real numbers."""
    sizes = [x.stride(i) * _numbers(x) if x.shape[i] == shape[i] and shape[i] > 1 else 0 for i in (0, 1)]
    return sizes[0], sizes[1]


def _kind(a: Tensor, h: Tensor) -> tuple[int, int]:
    """Whether the numbers are complex, and whether a has one for each column."""
    return int(h.is_complex()), int(a.shape[2] == h.shape[2])


class _Scan(torch.autograd.Function):
    """Time-major: b (time, batch, width), any strides, a the same or 1 in places of these; reset (time, batch) or None;
    h0, initial (batch, width)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, h0: Tensor, reset: Tensor | None, initial: Tensor) -> Tensor:
        a, b, h0, initial = _in_order(a), _in_order(b), _in_order(h0).contiguous(), _in_order(initial)
        reset = None if reset is None else reset.contiguous()
        # where b is dense h lies in memory as it does, so that what comes before and after needs no copies
        h = torch.empty_like(b)
        numbers, (steps, rows, columns) = _numbers(h), h.shape
        library().call(
            "scan_forward", h.dtype.to_real(), *_kind(a, h), a, *_steps(a, h.shape), b, *_steps(b, h.shape), h0,
            initial, initial.stride(0) * numbers, reset, h, *_steps(h, h.shape), steps, rows,
            columns * numbers, _threads(columns * numbers),
        )  # fmt: skip
        ctx.save_for_backward(a, h, h0, reset, initial)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        a, h, h0, reset, initial = ctx.saved_tensors
        grad = _in_order(grad)
        numbers, (steps, rows, columns) = _numbers(h), h.shape
        (is_complex, wide), threads = _kind(a, h), _threads(columns * numbers)
        b_grad, h0_grad = torch.empty_like(h), torch.zeros_like(h0)
        initial_grad = torch.zeros_like(h0) if ctx.needs_input_grad[4] else None
        sums, target, add, places = None, None, False, (0, 0, 0)
        if ctx.needs_input_grad[0]:
            # a row of factors for several steps gets the sum of their gradients, sequence by sequence
            times, batches = a.shape[0], rows if a.shape[0] == 1 else a.shape[1]
            add = (times, batches) != (steps, rows)
            shape = (1, times, batches, columns) if wide else (threads, times, batches, 1)
            sums = h.new_zeros(shape) if add or not wide else torch.empty_like(h).unsqueeze(0)
            target = sums[0]
            places = (sums.stride(0) * numbers if not wide else 0, *_steps(target, h.shape))
        library().call(
            "scan_backward", h.dtype.to_real(), is_complex, wide, a, *_steps(a, h.shape), h, *_steps(h, h.shape), h0,
            initial, initial.stride(0) * numbers, reset, grad, *_steps(grad, h.shape), target, *places, int(add),
            b_grad, h0_grad, initial_grad, steps, rows, columns * numbers, threads,
        )  # fmt: skip
        a_grad = None if sums is None else (sums[0] if len(sums) == 1 else sums.sum(0)).sum_to_size(a.shape)
        return a_grad, b_grad, h0_grad, None, initial_grad


def scan(a: Tensor, b: Tensor, h0: Tensor, reset: Tensor | None, initial: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`unrolled.kernels.diag_scan.reference.scan`."""
    flags = None if reset is None else reset.t()
    h: Tensor = _Scan.apply(a.transpose(0, 1), b.transpose(0, 1), h0, flags, initial)  # type: ignore[assignment]
    return h.transpose(0, 1), h[-1]
