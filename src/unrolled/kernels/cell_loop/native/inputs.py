"""Input products of a whole window, whose weight gradients the library makes where it is the faster one."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.cell_loop.weights import Weights
from unrolled.kernels.gradient import add_gradient

__all__ = ["InputWeights"]


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
