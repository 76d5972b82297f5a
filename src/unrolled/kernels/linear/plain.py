"""Products under autograd, by torch: the form that defines them."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.linear.bf16 import lowered
from unrolled.kernels.linear.steps import block_product

__all__ = ["product"]


def product(v: Tensor, weight: Tensor, add: Tensor | None, precision: str) -> Tensor:
    """``v @ weight.T (+ add)``; a weight (blocks, out, in) is block-diagonal over the last dimension of v."""
    if precision == "bf16":
        y: Tensor = _Lowered.apply(v, weight)  # type: ignore[assignment]
        return y if add is None else y + add
    if weight.dim() == 2:
        if add is not None and v.dim() == 2:
            return torch.addmm(add, v, weight.t())
        if add is not None and add.dim() == 1:
            return torch.nn.functional.linear(v, weight, add)
        y = torch.nn.functional.linear(v, weight)
    else:
        y = block_product(v.reshape(-1, v.shape[-1]), weight).view(*v.shape[:-1], -1)
    return y if add is None else y + add


class _Lowered(torch.autograd.Function):
    """The product of rounded factors. A node of its own, since autograd would multiply a gradient that is not rounded
    where the processor has no bf16 and the rounded factors are numbers of v's type."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, weight: Tensor) -> Tensor:
        low, low_weight = lowered(v), lowered(weight)
        ctx.save_for_backward(low, low_weight)
        ctx.dtypes = v.dtype, weight.dtype
        return product(low, low_weight, None, "float32").to(v.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        (v, weight), (dtype, weight_dtype) = ctx.saved_tensors, ctx.dtypes
        low, grad_v, grad_weight = lowered(grad), None, None
        if ctx.needs_input_grad[0]:
            grad_v = product(low, weight.mT, None, "float32").to(dtype)
        if ctx.needs_input_grad[1]:
            g, rows = low.reshape(-1, low.shape[-1]), v.reshape(-1, v.shape[-1])
            if weight.dim() == 3:
                g, rows = (part.unflatten(-1, (len(weight), -1)).transpose(0, 1) for part in (g, rows))
            grad_weight = (g.mT @ rows).to(weight_dtype)
        return grad_v, grad_weight
