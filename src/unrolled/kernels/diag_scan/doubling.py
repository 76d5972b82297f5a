"""The scan in log2(time) passes over the whole window, for devices on which a loop over time is slow."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["scan"]


def _from_zero(a: Tensor, b: Tensor) -> Tensor:
    """h(t) = a(t) h(t-1) + b(t) from zero, time first. Two neighbouring spans (a1, b1), (a2, b2) are together the span
    (a2 a1, a2 b1 + b2); each pass doubles the span that ends at every step (Hillis and Steele 1986)."""
    span = 1
    while span < len(b):
        b = torch.cat([b[:span], torch.addcmul(b[span:], a[span:], b[:-span])])
        if 2 * span < len(b):
            a = torch.cat([a[:span], a[span:] * a[:-span]])
        span *= 2
    return b


class _Scan(torch.autograd.Function):
    """a, b (time, batch, width), from zero."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        h = _from_zero(a, b).clone(memory_format=torch.contiguous_format)
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        a, h = ctx.saved_tensors
        # what reaches h(t) is its own gradient and, through the next step, what reaches h(t+1): the scan backwards
        factors = torch.cat([torch.zeros_like(a[:1]), a[1:].flip(0)])
        b_grad = _from_zero(factors.conj().resolve_conj(), grad.flip(0)).flip(0)
        a_grad = None
        if ctx.needs_input_grad[0]:
            a_grad = torch.cat([torch.zeros_like(h[:1]), b_grad[1:] * h[:-1].conj()])
        return a_grad, b_grad


def scan(a: Tensor, b: Tensor, h0: Tensor, reset: Tensor | None, initial: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`unrolled.kernels.diag_scan.reference.scan`."""
    a, b = a.expand_as(b).transpose(0, 1), b.transpose(0, 1)
    if reset is not None:
        flags = reset.t().unsqueeze(-1)
        # after a reset nothing of the past is left, and what is added knows the initial state
        b, a = b + torch.where(flags, a * initial, 0), a.masked_fill(flags, 0)
    b = torch.cat([(b[0] + a[0] * h0).unsqueeze(0), b[1:]])
    h: Tensor = _Scan.apply(a, b)  # type: ignore[assignment]
    return h.transpose(0, 1), h[-1]
