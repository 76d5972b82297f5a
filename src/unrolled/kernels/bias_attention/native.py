"""Attention in C++ on a CPU: see ``csrc/attention.h``."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.bias_attention.reference import Inputs
from unrolled.kernels.cpu import library, why_no_library

__all__ = ["attend", "refuse"]

# a thread has at least so many products of two numbers
_PER_THREAD = 1 << 17


def refuse(given: Inputs) -> str | None:
    """The reason why this backend cannot serve the call, or None."""
    if given.q.device.type != "cpu" or given.q.dtype not in (torch.float32, torch.float64):
        return "it computes on a CPU in float32 and float64"
    if given.weights != "softmax":
        return "it has the softmax alone"
    if given.bias is not None:
        return "it has no bias but the difference of levels"
    return why_no_library()


def _in_order(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _numbers(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        level: Tensor | None,
        first: Tensor | None,
        options: tuple[int, float],
    ) -> tuple[Tensor, Tensor]:
        always, scale = options
        q, k, v = _in_order(q), _in_order(k), _in_order(v)
        level, first = (part if part is None else part.contiguous() for part in (level, first))
        (batch, time, heads, size), (keys, groups, values) = q.shape, v.shape[1:]
        work = batch * heads * time * keys * (size + values)
        threads = max(1, min(torch.get_num_threads(), batch * groups, work // _PER_THREAD))
        apart = first is not None and first.shape[-1] > 1
        shape = _numbers([batch, time, keys, heads, groups, size, values, always, threads, int(apart)])
        y, lse = q.new_empty(batch, time, heads, values), q.new_empty(batch, time, heads)
        strides = _numbers([number for part in (q, k, v, y) for number in part.stride()[:3]])
        library().call("attention_forward", q.dtype, shape, strides, q, k, v, level, first, scale, y, lse)
        ctx.save_for_backward(q, k, v, level, first, y, lse)
        ctx.shape, ctx.strides, ctx.scale = shape, strides, scale
        ctx.set_materialize_grads(False)
        return y, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_lse: Tensor | None) -> Any:
        q, k, v, level, first, y, lse = ctx.saved_tensors
        grad = torch.zeros_like(y) if grad is None else _in_order(grad)
        grad_lse = None if grad_lse is None else grad_lse.contiguous()
        strides = torch.cat([ctx.strides, _numbers(list(grad.stride()[:3]))])
        grad_q = torch.empty_like(q, memory_format=torch.contiguous_format)
        grad_k, grad_v = (torch.zeros_like(part, memory_format=torch.contiguous_format) for part in (k, v))
        grad_level = None if level is None else torch.zeros_like(level)
        library().call(
            "attention_backward", q.dtype, ctx.shape, strides, q, k, v, level, first, ctx.scale, y, lse, grad, grad_lse,
            grad_q, grad_k, grad_v, grad_level,
        )  # fmt: skip
        return grad_q, grad_k, grad_v, grad_level, None, None


def attend(given: Inputs) -> tuple[Tensor, Tensor | None]:
    """See :func:`unrolled.kernels.bias_attention.reference.attend`."""
    options = given.always, given.scale
    y, lse = _Attention.apply(given.q, given.k, given.v, given.level, given.first, options)  # type: ignore[misc]
    return y, lse if given.lse else None
