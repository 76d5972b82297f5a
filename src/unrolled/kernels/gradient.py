"""The gradient of a matrix over many rows: ``grad.T @ rows``, by the native library where torch's product is slow."""

import torch
from torch import Tensor

from unrolled.kernels.cpu import library, why_no_library

__all__ = ["add_gradient"]

# Where the library is the faster one: 1.2 to 1.5 times with 1,024 and 3,200 rows on one AVX-512 core, from 256 x 64 to
# 2,048 x 64 and 1,024 x 128; square or wider matrices are torch's (0.7 to 1.0), and so are longer ones, whose rows lie
# many pages apart (0.7 for 10,000 x 119).
_WIDEST, _LONGEST = 128, 2048
_LONGER = 2


def _own(grad: Tensor, rows: Tensor) -> bool:
    out, width = grad.shape[1], rows.shape[1]
    narrow = width <= _WIDEST and _LONGER * width <= out <= _LONGEST
    known = grad.dtype == rows.dtype and grad.dtype in (torch.float32, torch.float64)
    in_order = grad.stride(1) == rows.stride(1) == 1
    return narrow and known and in_order and grad.device.type == "cpu" and why_no_library() is None


def add_gradient(grad: Tensor, rows: Tensor, total: Tensor | None = None) -> Tensor:
    """``total + grad.T @ rows``; a total is changed in place.

    Args:
        grad: (rows, out). rows: (rows, in). total: (out, in), contiguous.
    """
    if not _own(grad, rows):
        return grad.t() @ rows if total is None else total.addmm_(grad.t(), rows)
    add = total is not None
    total = grad.new_empty(grad.shape[1], rows.shape[1]) if total is None else total
    library().add_gradient(grad, rows, total, add)
    return total
