"""The scan chunk by chunk, on any device: one state of each chunk is kept, and the backward makes the others again."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.diag_scan import diag_scan
from unrolled.kernels.diag_scan_expanded.reference import coefficients

__all__ = ["scan"]

_STEPS = 16


def _chunk(
    u: Tensor, delta: Tensor, decay: Tensor, B: Tensor | None, C: Tensor, h: Tensor, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    a, b = (part.flatten(2) for part in coefficients(u, delta, decay, B))
    states, last = diag_scan(a, b, h.flatten(1), reset)
    y = (states.unflatten(2, h.shape[1:]) @ C.unsqueeze(-1)).squeeze(-1)
    return y, last.unflatten(1, h.shape[1:])


def _pieces(tensors: tuple[Tensor | None, ...]) -> Iterator[list[Tensor | None]]:
    """Chunks of tensors (batch, time, ...)."""
    time = next(part for part in tensors if part is not None).shape[1]
    for begin in range(0, time, _STEPS):
        yield [None if part is None else part[:, begin : begin + _STEPS] for part in tensors]


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, decay: Tensor, B: Tensor | None, C: Tensor, h0: Tensor, reset: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        h, outputs, kept = h0, [], []
        for u_c, delta_c, k_c, B_c, C_c, reset_c in _pieces((u, delta, decay if B is None else None, B, C, reset)):
            kept.append(h)
            y, h = _chunk(u_c, delta_c, decay if k_c is None else k_c, B_c, C_c, h, reset_c)  # type: ignore[arg-type]
            outputs.append(y)
        ctx.save_for_backward(u, delta, decay, B, C, reset, *kept)
        return torch.cat(outputs, 1), h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y_grad: Tensor, h_grad: Tensor) -> Any:
        u, delta, decay, B, C, reset, *kept = ctx.saved_tensors
        static = B is not None
        pieces = list(_pieces((u, delta, None if static else decay, B, C, reset, y_grad)))
        of_static, found = torch.zeros_like(decay) if static else None, []
        for (u_c, delta_c, k_c, B_c, C_c, reset_c, y_c), h in zip(pieces[::-1], kept[::-1], strict=True):
            inputs = [u_c, delta_c, decay if static else k_c, B_c, C_c, h]
            entries = [None if part is None else part.detach().requires_grad_() for part in inputs]
            with torch.enable_grad():
                outputs = _chunk(*entries, reset_c)  # type: ignore[arg-type]
            wanted = [part for part in entries if part is not None]
            grads = iter(torch.autograd.grad(outputs, wanted, [y_c, h_grad]))  # type: ignore[list-item]
            row = [None if part is None else next(grads) for part in entries]
            h_grad = row[5]  # type: ignore[assignment]
            if of_static is not None:
                of_static += row[2]  # type: ignore[arg-type]
            found.append(row)
        joined = [None if found[0][i] is None else torch.cat([row[i] for row in found[::-1]], 1) for i in (0, 1, 3, 4)]
        of_decay = of_static if static else torch.cat([row[2] for row in found[::-1]], 1)  # type: ignore[arg-type]
        return joined[0], joined[1], of_decay, joined[2], joined[3], h_grad, None


def scan(
    u: Tensor, delta: Tensor, decay: Tensor, B: Tensor | None, C: Tensor, h0: Tensor, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See :func:`unrolled.kernels.diag_scan_expanded.reference.scan`."""
    return _Scan.apply(u, delta, decay, B, C, h0, reset)  # type: ignore[return-value]
