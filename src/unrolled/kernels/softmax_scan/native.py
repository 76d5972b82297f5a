"""The scan in C++ on a CPU, one pass over time and one back."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.cpu import library, why_no_library

__all__ = ["refuse", "scan"]

# A thread has at least so many columns of all sequences together.
_PER_THREAD = 64


def refuse(s: Tensor, *others: Any) -> str | None:
    """The reason why this backend cannot serve the call, or None."""
    if s.device.type != "cpu" or s.dtype not in (torch.float32, torch.float64):
        return "it computes on a CPU in float32 and float64"
    return why_no_library()


def _in_order(x: Tensor) -> Tensor:
    """Columns side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _with_steps(x: Tensor) -> tuple[Tensor, int, int]:
    """x with its strides of a row and of a step."""
    return x, x.stride(0), x.stride(1)


def _decay(log_decay: Tensor | None, like: Tensor) -> tuple[Tensor | None, int, int]:
    """The same for what may be a row for all steps and sequences, or absent."""
    return (None, 0, 0) if log_decay is None else _with_steps(log_decay.expand_as(like))


class _Scan(torch.autograd.Function):
    """log_decay: (batch, time, width) or, the same for all, (width,), or None."""

    @staticmethod
    def forward(ctx: Any, s: Any, v: Any, log_decay: Any, bonus: Any, m: Any, u: Any, w: Any, reset: Any) -> Any:
        s, v, log_decay = _in_order(s), _in_order(v), None if log_decay is None else _in_order(log_decay)
        m, u, w = (part.contiguous() for part in (m, u, w))
        bonus, reset = (None if part is None else part.contiguous() for part in (bonus, reset))
        y, ms, us, ws = (s.new_empty(s.shape) for _ in range(4))
        given = (*s.shape, *_with_steps(s), *_with_steps(v), *_decay(log_decay, s), bonus, m, u, w, reset)
        library().call("softscan_forward", s.dtype, *given, y, ms, us, ws, _threads(s))
        ctx.save_for_backward(s, v, log_decay, bonus, m, u, w, reset, y, ms, us, ws)
        return y, ms[:, -1].clone(), us[:, -1].clone(), ws[:, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        s, v, log_decay, bonus, m, u, w, reset, y, ms, us, ws = ctx.saved_tensors
        y_grad, (m_grad, u_grad, w_grad) = (
            _in_order(grads[0]),
            (part.clone(memory_format=torch.contiguous_format) for part in grads[1:]),
        )
        s_grad, v_grad = torch.empty_like(y), torch.empty_like(y)
        # what is the same for all steps gets sums, sequence by sequence
        summed = log_decay is not None and log_decay.dim() == 1
        decay_grad = None if log_decay is None else torch.zeros_like(m) if summed else torch.empty_like(y)
        strides = (0, 0) if decay_grad is None else (decay_grad.stride(0), 0 if summed else decay_grad.stride(1))
        bonus_grad = None if bonus is None else torch.zeros_like(m)
        library().call(
            "softscan_backward", s.dtype, *s.shape, *_with_steps(s), *_with_steps(v), *_decay(log_decay, s), bonus, m,
            u, w, reset, y, ms, us, ws, *_with_steps(y_grad), s_grad, v_grad, decay_grad, *strides, bonus_grad, m_grad,
            u_grad, w_grad, _threads(s),
        )  # fmt: skip
        if decay_grad is not None and summed:
            decay_grad = decay_grad.sum(0)
        return (
            s_grad,
            v_grad,
            decay_grad,
            None if bonus_grad is None else bonus_grad.sum(0),
            m_grad,
            u_grad,
            w_grad,
            None,
        )


def _threads(s: Tensor) -> int:
    return max(1, min(torch.get_num_threads(), s.shape[0] * s.shape[2] // _PER_THREAD))


def scan(
    s: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    bonus: Tensor | None,
    m: Tensor,
    u: Tensor,
    w: Tensor,
    reset: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`unrolled.kernels.softmax_scan.reference.scan`."""
    if log_decay is not None and log_decay.shape != s.shape[2:]:
        log_decay = log_decay.expand_as(s)
    return _Scan.apply(s, v, log_decay, bonus, m, u, w, reset)  # type: ignore[return-value]
