"""The view of a cell's weights that its ``project`` and ``step`` see.

Every product with a matrix goes through :meth:`Weights.linear`. That one door is where weight gradients are
collected, weights masked and precision lowered, for any cell.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.linear.bf16 import lowered
from unrolled.kernels.linear.plain import product
from unrolled.kernels.linear.steps import prepare

__all__ = ["CollectingWeights", "Weights"]

# A collected product costs some 35 us of Python; below this many elements autograd's own product is faster. Measured
# with 20 rows on one AVX-512 core: the mLSTM of width 128 takes 55 ms collected and 45 plain, of width 256 109 both.
_WORTH_COLLECTING = 100_000


class Weights:
    """Weights by name, products done plainly under autograd.

    Args:
        named: name -> tensor, relative to the cell.
        precision: ``float32`` (or whatever the tensors are) or ``bf16`` products.
    """

    def __init__(self, named: Mapping[str, Tensor], precision: str = "float32", prefix: str = ""):
        self.named = named
        self.precision = precision
        self.prefix = prefix

    def linear(self, name: str, v: Tensor, add: Tensor | None = None) -> Tensor:
        """``v @ W.T (+ add)`` for the matrix ``name``: (out, in), or block-diagonal (blocks, out, in).

        Args:
            v: (..., in).
            add: (..., out) or (out,), added to the product; passing it here lets a backend fuse the sum.
        """
        return product(v, self.named[self.prefix + name], add, self.precision)

    def __getitem__(self, name: str) -> Tensor:
        """A vector (bias, gain) by name."""
        return self.named[self.prefix + name]

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.named

    def scope(self, prefix: str) -> "Weights":
        """The weights of an inner cell."""
        return type(self)(self.named, self.precision, f"{self.prefix}{prefix}.")


class _Matrix:
    """One matrix during one window, prepared for its products, with what its gradient is made of.

    It does not hold its anchor: the anchor's graph holds the matrix, and a cycle would keep the prepared copies of
    every window alive until the garbage collector comes by.
    """

    def __init__(self, weight: Tensor, precision: str, batch: int, steps: int):
        self.low = precision == "bf16"
        self.source = weight.detach()
        self.weight = lowered(self.source) if self.low else self.source
        self.forward = prepare(self.weight, batch, steps)
        self.backward: Callable[[Tensor], Tensor] | None = None
        self.batch, self.steps = batch, steps
        self.inputs: list[Tensor] = []
        self.grads: list[Tensor] = []
        self.task = -1

    def multiply(self, v: Tensor, add: Tensor | None) -> Tensor:
        """v W^T + add."""
        y = self.forward(lowered(v)).to(v.dtype) if self.low else self.forward(v)
        return y if add is None else y.add_(add)

    def multiply_transposed(self, grad: Tensor) -> Tensor:
        """grad W."""
        if self.backward is None:
            self.backward = prepare(self.weight.mT, self.batch, self.steps)
        return self.backward(grad)

    def collect(self, v: Tensor, grad: Tensor) -> None:
        """Keep the two factors of one product's share of the gradient, for the backward pass that runs now."""
        task = torch._C._current_graph_task_id()
        if task != self.task:  # an earlier pass may have broken off before it came to the anchor
            self.task = task
            self.inputs.clear()
            self.grads.clear()
        self.inputs.append(v)
        self.grads.append(grad)


class _Anchor(torch.autograd.Function):
    """Ties a matrix to all its products of a window: autograd reaches it after the last of them."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, matrix: _Matrix) -> Tensor:
        ctx.matrix, ctx.like = matrix, weight.detach()
        return weight.new_empty(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> Any:
        matrix = ctx.matrix
        if not matrix.grads:
            return torch.zeros_like(ctx.like), None
        g, v = torch.cat(matrix.grads), torch.cat(matrix.inputs)
        matrix.grads.clear()
        matrix.inputs.clear()
        if ctx.like.dim() == 3:
            g, v = (part.unflatten(-1, (len(ctx.like), -1)).transpose(0, 1) for part in (g, v))
        return (g.mT @ v).to(ctx.like.dtype), None


class _Product(torch.autograd.Function):
    """``v @ W.T + add`` whose backward passes the gradient on to v and leaves that of W for the anchor."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, add: Tensor | None, anchor: Tensor, matrix: _Matrix) -> Tensor:
        ctx.matrix = matrix
        # the weight is saved for its version alone: autograd then refuses a backward pass after a change in place
        ctx.save_for_backward(lowered(v) if matrix.low else v, matrix.source)
        return matrix.multiply(v, add)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        matrix = ctx.matrix
        v, _ = ctx.saved_tensors
        low = lowered(grad) if matrix.low else grad.contiguous()
        # a pass that asks for other gradients only (of the inputs, say) never comes to the anchor, the last tensor
        if torch._C._will_engine_execute_node(ctx.next_functions[-1][0]):
            matrix.collect(v, low)
        grad_v = matrix.multiply_transposed(low).to(grad.dtype) if ctx.needs_input_grad[0] else None
        return grad_v, grad if ctx.needs_input_grad[1] else None, None, None


class CollectingWeights(Weights):
    """Weights for one window: each matrix is prepared once, and its gradient is ONE product at the end.

    Small matrices go the plain way.

    Args:
        steps: products that each matrix will serve in this window; a single one is not worth preparing for.
    """

    def __init__(
        self,
        named: Mapping[str, Tensor],
        precision: str = "float32",
        prefix: str = "",
        steps: int = 1,
        matrices: dict[str, tuple[_Matrix, Tensor | None]] | None = None,
    ):
        super().__init__(named, precision, prefix)
        self.steps = steps
        self.matrices: dict[str, tuple[_Matrix, Tensor | None]] = {} if matrices is None else matrices

    def linear(self, name: str, v: Tensor, add: Tensor | None = None) -> Tensor:
        key = self.prefix + name
        weight = self.named[key]
        if v.dim() != 2 or weight.numel() < _WORTH_COLLECTING:
            return product(v, weight, add, self.precision)
        if add is not None and add.dim() == 1:  # a collected product adds rows
            return self.linear(name, v) + add
        if key not in self.matrices:
            made = _Matrix(weight, self.precision, v.shape[0], self.steps)
            wanted = torch.is_grad_enabled() and weight.requires_grad
            self.matrices[key] = made, _Anchor.apply(weight, made) if wanted else None  # type: ignore[assignment]
        matrix, anchor = self.matrices[key]
        if anchor is not None:
            return _Product.apply(v, add, anchor, matrix)  # type: ignore[return-value]
        if torch.is_grad_enabled() and (v.requires_grad or (add is not None and add.requires_grad)):
            return product(v, weight, add, self.precision)
        return matrix.multiply(v, add)

    def scope(self, prefix: str) -> "CollectingWeights":
        return CollectingWeights(self.named, self.precision, f"{self.prefix}{prefix}.", self.steps, self.matrices)
