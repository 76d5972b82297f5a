"""Gradients of matrices over all rows of a window, by the library where torch's product is slow."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.cell_loop.weights import Weights
from unrolled.kernels.cpu import library

__all__ = ["InputWeights", "add_gradient"]

# Where the library is the faster one: 1.2 to 1.5 times with 1,024 and 3,200 rows on one AVX-512 core, from 256 x 64 to
# 2,048 x 64 and 1,024 x 128; square or wider matrices are torch's (0.7 to 1.0).
_WIDEST = 128
_LONGER = 2


def _own(grad: Tensor, rows: Tensor) -> bool:
    return rows.shape[1] <= _WIDEST and grad.shape[1] >= _LONGER * rows.shape[1] and rows.dtype == grad.dtype


def add_gradient(grad: Tensor, rows: Tensor, total: Tensor | None = None) -> Tensor:
    """``total + grad.T @ rows``; total is changed in place where there is one.

    Args:
        grad: (rows, out). rows: (rows, in). Columns lie side by side.
    """
    if not _own(grad, rows):
        product = grad.t() @ rows
        return product if total is None else total.add_(product)
    add = total is not None
    total = grad.new_empty(grad.shape[1], rows.shape[1]) if total is None else total
    library().add_gradient(grad, rows, total, add)
    return total


class _Linear(torch.autograd.Function):
    """``v @ weight.T + bias`` for v (steps, batch, in)."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(v, weight)
        ctx.bias = bias is not None
        return torch.nn.functional.linear(v, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        v, weight = ctx.saved_tensors
        grad = grad.contiguous()
        flat = grad.flatten(0, 1)
        grad_v = grad @ weight if ctx.needs_input_grad[0] else None
        grad_weight = add_gradient(flat, v.flatten(0, 1)) if ctx.needs_input_grad[1] else None
        return grad_v, grad_weight, flat.sum(0) if ctx.bias and ctx.needs_input_grad[2] else None


class InputWeights(Weights):
    """Weights for ``project`` over a window: the products of all steps at once."""

    def linear(self, name: str, v: Tensor, add: Tensor | None = None) -> Tensor:
        weight = self.named[self.prefix + name]
        plain = v.dim() == 3 and weight.dim() == 2 and (add is None or add.dim() == 1)
        if plain and self.precision == "float32" and torch.is_grad_enabled() and weight.requires_grad:
            return _Linear.apply(v, weight, add)  # type: ignore[return-value]
        return super().linear(name, v, add)
