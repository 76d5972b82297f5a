"""A matrix made ready for many products with few rows each.

A recurrent step multiplies (batch, in) by a matrix far larger than the batch, so that the library's packing of
the matrix, which it repeats at every call, costs as much as the arithmetic. Measured on one AVX-512 core with 20
rows, GFLOP/s of ``v @ W.t()``, of a product with the contiguous transpose, and of the packed form: 512 x 2048: 31,
37, 60; 1150 x 4600: 23, 32, 50.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["block_product", "prepare"]

# From this many products on, one copy of the matrix pays.
_WORTH_PREPARING = 4


def block_product(v: Tensor, weight: Tensor) -> Tensor:
    """v (rows, blocks * in) times each block of ``weight`` (blocks, out, in), transposed: (rows, blocks * out).

    One batched product over the blocks. Measured with 32 rows and 4 square blocks of 256 and 512 on one AVX-512 core:
    0.17 and 0.63 ms; the broadcast product of each row alone, 27 and 157 ms; one packed product a block, 0.25 and 0.74.
    """
    blocks, out, width = weight.shape
    y = torch.bmm(v.unflatten(-1, (blocks, width)).transpose(0, 1), weight.transpose(1, 2))
    return y.transpose(0, 1).reshape(-1, blocks * out)


def _mkl_packs() -> bool:
    """Whether this build of torch offers MKL's packed product (an x86 build with MKL)."""
    return torch.backends.mkl.is_available() and hasattr(torch.ops, "mkl") and hasattr(torch.ops.mkl, "_mkl_linear")


def prepare(weight: Tensor, batch: int, products: int) -> Callable[[Tensor], Tensor]:
    """``v -> v @ weight.T`` for v (batch, in), prepared for ``products`` calls with the values of now.

    Args:
        weight: (out, in), any strides, without gradient; or block-diagonal, (blocks, out, in), and then v is
            (batch, blocks * in) and the product (batch, blocks * out).
    """
    if weight.dim() == 3:
        # the batched product reads the transposed blocks faster when they lie in order
        parts = weight.mT.contiguous().mT if products >= _WORTH_PREPARING else weight
        return lambda v: block_product(v, parts)
    transposed = weight.t()
    if products < _WORTH_PREPARING or weight.device.type != "cpu":
        return lambda v: v @ transposed
    if weight.dtype == torch.float32 and _mkl_packs():
        plain = weight.contiguous()
        packed = torch.ops.mkl._mkl_reorder_linear_weight(plain, batch)
        return lambda v: torch.ops.mkl._mkl_linear(v, packed, plain, None, batch)
    transposed = transposed.contiguous()
    return lambda v: v @ transposed
