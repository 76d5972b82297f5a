"""Input products of a whole window as one node each."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.cell_loop.weights import Weights
from unrolled.kernels.window import WindowMatrix, window_gradient

__all__ = ["InputWeights"]


class _Linear(torch.autograd.Function):
    """``v @ weight.T + bias`` for v (..., in)."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, weight: Tensor, bias: Tensor | None, low: bool) -> Tensor:
        ctx.save_for_backward(v, weight)
        ctx.bias, ctx.low = bias is not None, low
        return WindowMatrix(weight, low).multiply(v, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        v, weight = ctx.saved_tensors
        flat = grad.flatten(0, -2)
        grad_v = WindowMatrix(weight, ctx.low).multiply_transposed(grad) if ctx.needs_input_grad[0] else None
        grad_weight = window_gradient(flat, v.flatten(0, -2), low=ctx.low) if ctx.needs_input_grad[1] else None
        return grad_v, grad_weight, flat.sum(0) if ctx.bias and ctx.needs_input_grad[2] else None, None


class InputWeights(Weights):
    """Weights for ``project`` over a window: the products of all steps at once."""

    def linear(self, name: str, v: Tensor, add: Tensor | None = None) -> Tensor:
        weight = self.named[self.prefix + name]
        if weight.dim() == 2 and (add is None or add.dim() == 1):
            return _Linear.apply(v, weight, add, self.precision == "bf16")  # type: ignore[return-value]
        return super().linear(name, v, add)
