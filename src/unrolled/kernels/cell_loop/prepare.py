"""A matrix made ready for many products with few rows each.

A recurrent step multiplies (batch, in) by a matrix far larger than the batch, so that the library's packing of
the matrix, which it repeats at every call, costs as much as the arithmetic. Measured on one AVX-512 core with 20
rows, GFLOP/s of ``v @ W.t()``, of a product with the contiguous transpose, and of the packed form: 512 x 2048: 31,
37, 60; 1150 x 4600: 23, 32, 50.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["prepare"]

# From this many products on, one copy of the matrix pays.
_WORTH_PREPARING = 4


def _mkl_packs() -> bool:
    """Whether this build of torch offers MKL's packed product (an x86 build with MKL)."""
    return torch.backends.mkl.is_available() and hasattr(torch.ops, "mkl") and hasattr(torch.ops.mkl, "_mkl_linear")


def prepare(weight: Tensor, batch: int, products: int) -> Callable[[Tensor], Tensor]:
    """``v -> v @ weight.T`` for v (batch, in), prepared for ``products`` calls with the values of now.

    Args:
        weight: (out, in), any strides, without gradient.
    """
    transposed = weight.t()
    if products < _WORTH_PREPARING or weight.device.type != "cpu":
        return lambda v: v @ transposed
    if weight.dtype == torch.float32 and _mkl_packs():
        plain = weight.contiguous()
        packed = torch.ops.mkl._mkl_reorder_linear_weight(plain, batch)
        return lambda v: torch.ops.mkl._mkl_linear(v, packed, plain, None, batch)
    transposed = transposed.contiguous()
    return lambda v: v @ transposed
