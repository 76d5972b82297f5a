"""One pass over time in place, and one back: the gradient of a scan is the scan run backwards."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["scan"]


class _Scan(torch.autograd.Function):
    """Time-major: a, b (time, batch, width); reset (time, batch, 1) or None."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, h0: Tensor, reset: Tensor | None, initial: Tensor) -> Tensor:
        h = torch.empty_like(b, memory_format=torch.contiguous_format)
        last = h0
        # one look at all flags: a row of time without a reset needs no selection
        flags = [False] * len(b) if reset is None else reset.flatten(1).any(1).tolist()
        for t, (a_t, b_t, out) in enumerate(zip(a.unbind(0), b.unbind(0), h.unbind(0), strict=True)):
            if flags[t] and reset is not None:
                last = torch.where(reset[t], initial, last)
            last = torch.addcmul(b_t, a_t, last, out=out)
        ctx.save_for_backward(a, h, h0, reset, initial)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        a, h, h0, reset, initial = ctx.saved_tensors
        a = a.conj().resolve_conj() if a.is_complex() else a
        carry = a if reset is None else a.masked_fill(reset, 0)
        # what reaches h(t) is its own gradient and, through the next step, what reaches h(t+1)
        b_grad = torch.empty_like(grad, memory_format=torch.contiguous_format)
        outs, grads, factors = b_grad.unbind(0), grad.unbind(0), carry.unbind(0)
        outs[-1].copy_(grads[-1])
        for t in range(len(outs) - 2, -1, -1):
            torch.addcmul(grads[t], factors[t + 1], outs[t + 1], out=outs[t])
        a_grad = None
        if ctx.needs_input_grad[0]:
            before = torch.cat([h0.unsqueeze(0), h[:-1]])
            if reset is not None:
                before = torch.where(reset, initial, before)
            a_grad = b_grad * (before.conj() if before.is_complex() else before)
        h0_grad = factors[0] * outs[0] if ctx.needs_input_grad[2] else None
        initial_grad = None
        if ctx.needs_input_grad[4]:
            initial_grad = torch.zeros_like(h0) if reset is None else (a * b_grad * reset).sum(0)
        return a_grad, b_grad, h0_grad, None, initial_grad


def scan(a: Tensor, b: Tensor, h0: Tensor, reset: Tensor | None, initial: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`unrolled.kernels.diag_scan.reference.scan`."""
    flags = None if reset is None else reset.t().unsqueeze(-1)
    h: Tensor = _Scan.apply(a.expand_as(b).transpose(0, 1), b.transpose(0, 1), h0, flags, initial)  # type: ignore[assignment]
    return h.transpose(0, 1), h[-1]
