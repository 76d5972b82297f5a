"""The scan in C++ on a CPU: states stay in the first cache, and every sixteenth is kept for the backward."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.cpu import library, why_no_library

__all__ = ["refuse", "scan"]

_STEPS, _GROUP = 16, 256  # as in csrc/expanded.cpp


def refuse(u: Tensor, *others: Any) -> str | None:
    """The reason why this backend cannot serve the call, or None."""
    if u.device.type != "cpu" or u.dtype not in (torch.float32, torch.float64):
        return "it computes on a CPU in float32 and float64"
    return why_no_library()


def _in_order(x: Tensor) -> Tensor:
    """Columns side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _with_steps(*tensors: Tensor) -> tuple[Any, ...]:
    """Each followed by its strides of a row and of a step."""
    return tuple(value for x in tensors for value in (x, x.stride(0), x.stride(1)))


class _Scan(torch.autograd.Function):
    """h0 and the last state are (batch, states, width) here; decay is A as (states, width), or k."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, decay: Tensor, B: Tensor | None, C: Tensor, h0: Tensor, reset: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        u, delta, decay, C, h0 = _in_order(u), _in_order(delta), decay.contiguous(), C.contiguous(), h0.contiguous()
        B = None if B is None else B.contiguous()
        reset = None if reset is None else reset.contiguous()
        (rows, steps, width), states = u.shape, C.shape[2]
        y, last, kept = torch.empty_like(u), torch.empty_like(h0), None
        if any(ctx.needs_input_grad):
            kept = h0.new_empty(rows, -(-steps // _STEPS), states, width)
        given = (rows, steps, width, states, *_with_steps(u, delta), *_of_mode(decay, B), C, h0, reset, kept)
        library().call("expanded_forward", u.dtype, *given, *_with_steps(y), last, torch.get_num_threads())
        ctx.save_for_backward(u, delta, decay, B, C, h0, reset, kept)
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y_grad: Tensor, last_grad: Tensor) -> Any:
        u, delta, decay, B, C, h0, reset, kept = ctx.saved_tensors
        y_grad, last_grad = _in_order(y_grad), last_grad.contiguous()
        (rows, steps, width), states = u.shape, C.shape[2]
        u_grad = torch.empty_like(u)
        delta_grad, h0_grad = torch.empty_like(u_grad), torch.empty_like(h0)
        A_grad = None if B is None else torch.zeros_like(h0)
        # of A for each sequence by itself, of B (or k) and C for each group of columns: the same whatever the threads
        B_grad, C_grad = (u.new_empty(-(-width // _GROUP), rows, steps, states) for _ in range(2))
        library().call(
            "expanded_backward", u.dtype, rows, steps, width, states, *_with_steps(u, delta), *_of_mode(decay, B), C,
            h0, reset, kept, *_with_steps(y_grad), last_grad, u_grad, *_with_steps(delta_grad), A_grad, B_grad, C_grad,
            h0_grad, torch.get_num_threads(),
        )  # fmt: skip
        B_sum, C_sum = B_grad.sum(0), C_grad.sum(0)
        if A_grad is None:
            return u_grad, delta_grad, B_sum, None, C_sum, h0_grad, None
        return u_grad, delta_grad, A_grad.sum(0), B_sum, C_sum, h0_grad, None


def _of_mode(decay: Tensor, B: Tensor | None) -> tuple[Tensor | None, Tensor]:
    """A and B, or nothing and k."""
    return (None, decay) if B is None else (decay, B)


def scan(
    u: Tensor, delta: Tensor, decay: Tensor, B: Tensor | None, C: Tensor, h0: Tensor, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See :func:`unrolled.kernels.diag_scan_expanded.reference.scan`."""
    y, last = _Scan.apply(u, delta, decay if B is None else decay.t(), B, C, h0.transpose(1, 2), reset)  # type: ignore[misc]
    return y, last.transpose(1, 2)
