"""Products over all rows of a window, by the native library where it is the faster one: those of inputs with a matrix,
and the matrix's gradient, in float32, in float64 or with factors rounded to bf16.

torch's products come from Intel's MKL, and are the faster ones but on AMD's processors with AVX-512, and for narrow
gradients. On an AMD EPYC (Zen 4), one core, 3,200 rows, GFLOP/s of library and torch: inputs 512 x 2,048, 100 and 92;
256 x 1,024, 103 and 91; gradients of the same sizes 101 and 89, 101 and 89; with bf16 factors 196 and 99 (torch's sums
made float32 again), 188 and 181.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.cpu import beats_torch, library, why_no_library
from unrolled.kernels.linear.bf16 import lowered

__all__ = ["WindowMatrix", "rows_in_order", "window_gradient", "window_product"]

# With fewer rows packing a matrix costs more than it gains.
_FEWEST_ROWS = 128
# Where the library makes the faster gradients on other processors too: 1.2 to 1.5 times with 1,024 and 3,200 rows on
# one AVX-512 core, from 256 x 64 to 2,048 x 64 and 1,024 x 128; square or wider matrices are torch's (0.7 to 1.0), and
# so were longer ones, whose rows lie many pages apart (0.7 for 10,000 x 119).
_WIDEST, _LONGEST = 128, 2048
_LONGER = 2


def _known(low: bool, one: Tensor, other: Tensor) -> bool:
    """Whether the library can make the products of two tensors."""
    if one.device.type != "cpu" or one.dtype != other.dtype or why_no_library() is not None:
        return False
    if low:
        return one.dtype == torch.float32 and library().lowers
    return one.dtype in (torch.float32, torch.float64)


class WindowMatrix:
    """A matrix (out, in) for products with many rows.

    Args:
        low: round the factors of products to bf16. By the library their sums are float32; by torch on a processor with
            bf16 instructions they come out rounded to bf16.
    """

    def __init__(self, weight: Tensor, low: bool = False):
        self._weight, self._low = weight, low
        self._packed: dict[bool, Tensor] = {}
        self._rounded: Tensor | None = None

    def multiply(self, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """v W^T + bias, for v (..., in) and bias (out,)."""
        return self._multiply(v, bias, False)

    def multiply_transposed(self, grad: Tensor) -> Tensor:
        """grad W, for grad (..., out)."""
        return self._multiply(grad, None, True)

    def _multiply(self, v: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
        k, n = self._weight.shape if transposed else self._weight.t().shape
        flat = v.reshape(-1, k)
        if len(flat) < _FEWEST_ROWS or not _known(self._low, v, self._weight) or (not self._low and not beats_torch()):
            y = self._by_torch(flat, bias, transposed)
        else:
            packed = self._packed.get(transposed)
            if packed is None:
                matrix = self._weight if transposed else self._weight.t()
                packed = self._packed[transposed] = library().pack(matrix, "bf16_factors" if self._low else "exact")
            y = library().linear(rows_in_order(flat), packed, n, bias, self._low)
        return y.view(*v.shape[:-1], n)

    def _by_torch(self, v: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
        weight = self._weight
        if self._low:
            if self._rounded is None:
                self._rounded = lowered(weight)
            weight, v, dtype = self._rounded, lowered(v), v.dtype
            y = (v @ (weight if transposed else weight.t())).to(dtype)
            return y if bias is None else y.add_(bias)
        return v @ weight if transposed else torch.nn.functional.linear(v, weight, bias)


def window_gradient(grad: Tensor, rows: Tensor, total: Tensor | None = None, low: bool = False) -> Tensor:
    """``total + grad.T @ rows``; a total is changed in place.

    Args:
        grad: (rows, out). rows: (rows, in). total: (out, in), contiguous. low: round both factors to bf16.
    """
    if not _own_gradient(grad, rows, low):
        if low:
            product = (lowered(grad).t() @ lowered(rows)).to(rows.dtype)
            return product if total is None else total.add_(product)
        return grad.t() @ rows if total is None else total.addmm_(grad.t(), rows)
    add = total is not None
    total = grad.new_empty(grad.shape[1], rows.shape[1]) if total is None else total
    library().add_gradient(rows_in_order(grad), rows_in_order(rows), total, add, low)
    return total


def _own_gradient(grad: Tensor, rows: Tensor, low: bool) -> bool:
    if not _known(low, grad, rows):
        return False
    if low or beats_torch():
        return len(rows) >= _FEWEST_ROWS
    out, width = grad.shape[1], rows.shape[1]
    return width <= _WIDEST and _LONGER * width <= out <= _LONGEST and grad.stride(1) == rows.stride(1) == 1


def rows_in_order(x: Tensor) -> Tensor:
    """The columns of a row lie side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, weight: Tensor, bias: Tensor | None, low: bool) -> Tensor:
        ctx.save_for_backward(v, weight)
        ctx.bias, ctx.low = bias is not None, low
        return WindowMatrix(weight, low).multiply(v, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        v, weight = ctx.saved_tensors
        flat = rows_in_order(grad.flatten(0, -2))
        grad_v = None
        if ctx.needs_input_grad[0]:
            grad_v = WindowMatrix(weight, ctx.low).multiply_transposed(flat).view(v.shape)
        grad_weight = window_gradient(flat, v.flatten(0, -2), low=ctx.low) if ctx.needs_input_grad[1] else None
        return grad_v, grad_weight, flat.sum(0) if ctx.bias and ctx.needs_input_grad[2] else None, None


def window_product(v: Tensor, weight: Tensor, bias: Tensor | None, precision: str) -> Tensor:
    """``v @ weight.T + bias`` with its gradients as one node, for v (..., in), weight (out, in) and bias (out,).

    Args:
        precision: ``bf16`` rounds the factors of all its products.
    """
    return _Product.apply(v, weight, bias, precision == "bf16")  # type: ignore[return-value]
