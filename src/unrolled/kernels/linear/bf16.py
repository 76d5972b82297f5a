"""bf16 factors of matrix products, in the type in which this machine multiplies them fastest."""

import functools

import torch
from torch import Tensor

__all__ = ["fast_products", "lowered"]


@functools.cache
def fast_products() -> bool:
    """Whether the processor has instructions for bf16 products (AMX or AVX512-BF16)."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def lowered(x: Tensor) -> Tensor:
    """x rounded to bf16. On a CPU without instructions for it the rounded numbers stay in x's own type, whose products
    are faster there: the factors are the same, and the sums are not rounded to bf16 at their end."""
    y = x.bfloat16()
    return y if x.device.type != "cpu" or fast_products() else y.to(x.dtype)
