"""The plain loop that defines the operation."""

import torch
from torch import Tensor

__all__ = ["coefficients", "scan"]


def coefficients(u: Tensor, delta: Tensor, decay: Tensor, B: Tensor | None) -> tuple[Tensor, Tensor]:
    """a and b, (..., width, states), of some steps; see :func:`unrolled.kernels.diag_scan_expanded.diag_scan_expanded`.

    Args:
        u, delta: (..., width). decay: A (width, states), or without B k (..., states). B: (..., states) or None.
    """
    delta = delta.unsqueeze(-1)
    if B is None:
        k = decay.unsqueeze(-2)
        return 1 - delta * k * k, delta * u.unsqueeze(-1) * k
    return torch.exp(delta * decay), delta * u.unsqueeze(-1) * B.unsqueeze(-2)


def scan(
    u: Tensor, delta: Tensor, decay: Tensor, B: Tensor | None, C: Tensor, h0: Tensor, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    """h(t) = a(t) h(t-1) + b(t), y(t) = sum of C(t) h(t) over the states; all of one type."""
    h, outputs = h0, []
    for t in range(u.shape[1]):
        if reset is not None:
            h = h.masked_fill(reset[:, t, None, None], 0)
        a, b = coefficients(
            u[:, t], delta[:, t], decay if B is not None else decay[:, t], None if B is None else B[:, t]
        )
        h = a * h + b
        outputs.append((h * C[:, t].unsqueeze(-2)).sum(-1))
    return torch.stack(outputs, 1), h
