"""The loop in C++ on a CPU: see ``csrc/matrix.h``."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.cpu import library, why_no_library
from unrolled.kernels.matrix_scan.reference import Inputs

__all__ = ["refuse", "scan"]

_GROUP = 16  # as in csrc/matrix.h
_NONE, _HEAD, _KEY, _VALUE = range(4)


def refuse(given: Inputs) -> str | None:
    """The reason why this backend cannot serve the call, or None."""
    if given.q.device.type != "cpu" or given.q.dtype not in (torch.float32, torch.float64):
        return "it computes on a CPU in float32 and float64"
    if given.a is not None and given.by_value:
        return "it has no rank-one part beside a decay of values"
    return why_no_library()


def _in_order(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _kind(decay: Tensor | None, by_value: bool) -> int:
    if decay is None:
        return _NONE
    return _HEAD if decay.shape[-1] == 1 else _VALUE if by_value else _KEY


def _numbers(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


class _Scan(torch.autograd.Function):
    """decay: exp of the logarithm. The others as in :class:`Inputs`."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        decay: Tensor | None,
        a: Tensor | None,
        b: Tensor | None,
        state: Tensor,
        reset: Tensor | None,
        options: tuple[bool, bool, float],
    ) -> tuple[Tensor, Tensor]:
        by_value, before, scale = options
        parts = [part if part is None else _in_order(part) for part in (q, k, v, decay, a, b)]
        reset = None if reset is None else reset.contiguous()
        batch, time, heads, keys, values = *q.shape, v.shape[-1]
        threads = max(1, min(torch.get_num_threads(), batch * heads))
        shape = _numbers([batch, time, heads, keys, values, _kind(decay, by_value), int(before), threads])
        strides = [number for part in parts for number in ((0, 0, 0) if part is None else part.stride()[:3])]
        start = state.contiguous()
        o, last = q.new_empty(batch, time, heads, values), torch.empty_like(start)
        z = kept = None
        if any(ctx.needs_input_grad):
            kept = q.new_empty(batch, heads, -(-time // _GROUP), keys, values)
            z = None if a is None else torch.empty_like(o)
        library().call(
            "matrix_forward", q.dtype, shape, _numbers(strides), *parts, reset, start, scale, o, last, kept, z
        )
        ctx.save_for_backward(*parts, reset, kept, z)
        ctx.shape, ctx.strides, ctx.scale = shape, strides, scale
        return o, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_last: Tensor | None) -> Any:
        *parts, reset, kept, z = ctx.saved_tensors
        grad, grad_last = _in_order(grad), None if grad_last is None else grad_last.contiguous()
        strides = _numbers([*ctx.strides, *grad.stride()[:3]])
        grads = [part if part is None else part.new_empty(part.shape) for part in parts]
        batch, _, heads, keys, values = ctx.shape[:5].tolist()
        start = grad.new_empty(batch, heads, keys, values)
        given = (ctx.shape, strides, *parts, reset, kept, z, ctx.scale, grad, grad_last)
        library().call("matrix_backward", grad.dtype, *given, *grads, start)
        return *grads, start, None, None


def scan(given: Inputs) -> tuple[Tensor, Tensor]:
    """See :func:`unrolled.kernels.matrix_scan.reference.scan`."""
    decay = None if given.log_decay is None else given.log_decay.exp()
    options = given.by_value, given.before, given.scale
    # where what is added to k is k itself, one addition serves both
    b = None if given.b is given.k else given.b
    parts = given.q, given.k, given.v, decay, given.a, b, given.state, given.reset
    return _Scan.apply(*parts, options)  # type: ignore[return-value]
