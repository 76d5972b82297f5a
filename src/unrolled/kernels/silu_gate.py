"""``silu_gate``: (y + skip * u) * z / (1 + e^-z), the gated output of many mixers, with a skip or without.

Backends: ``native`` (in C++ on a CPU, one pass forward and one back, where torch makes a dozen) and ``reference``.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

from unrolled.kernels.cpu import library, why_no_library
from unrolled.kernels.dispatch import Backend, Operation, Sizes, choose

__all__ = ["BACKENDS", "OPERATION", "silu_gate"]

_GROUP = 64  # as in csrc/gate.cpp
_FEW = 65536


def _refuse(y: Tensor, *others: Tensor | None) -> str | None:
    if y.device.type != "cpu" or y.dtype not in (torch.float32, torch.float64):
        return "it computes on a CPU in float32 and float64"
    if any(other is not None and other.dtype != y.dtype for other in others):
        return "it computes in one type"
    return why_no_library()


def _pays(y: Tensor, *others: Tensor | None) -> bool:
    """Whether there is enough to compute: a call of the library takes longer than two of torch's on few numbers."""
    return y.numel() >= _FEW


def _rows(x: Tensor) -> Tensor:
    """x as (rows, n) with columns side by side; a copy where its rows do not lie evenly apart."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    try:
        return x.view(-1, x.shape[-1])
    except RuntimeError:
        return x.reshape(-1, x.shape[-1])


def _threads(rows: int) -> int:
    return max(1, min(torch.get_num_threads(), rows // _GROUP))


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, z: Tensor, skip: Tensor | None, u: Tensor | None) -> Tensor:
        y, z = y.contiguous(), _rows(z)
        skip, u = None if skip is None else skip.contiguous(), None if u is None else _rows(u)
        (rows, n), out = z.shape, torch.empty_like(y)
        given = (rows, n, y, z, z.stride(0), skip, u, 0 if u is None else u.stride(0))
        library().call("gate_forward", y.dtype, *given, out, _threads(rows))
        ctx.save_for_backward(y, z, skip, u)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        y, z, skip, u = ctx.saved_tensors
        (rows, n), grad = z.shape, grad.contiguous()
        grad_y, grad_z = torch.empty_like(y), torch.empty_like(y)
        grad_u = sums = None
        if u is not None:
            grad_u, sums = torch.empty_like(y), y.new_zeros(-(-rows // _GROUP), n)
        given = (rows, n, y, z, z.stride(0), skip, u, 0 if u is None else u.stride(0))
        library().call("gate_backward", y.dtype, *given, grad, grad_y, grad_z, grad_u, sums, _threads(rows))
        return grad_y, grad_z, None if sums is None else sums.sum(0), grad_u


def _reference(y: Tensor, z: Tensor, skip: Tensor | None, u: Tensor | None) -> Tensor:
    return (y if skip is None or u is None else y + skip * u) * silu(z)


BACKENDS = {
    backend.name: backend
    for backend in (Backend("native", _refuse, _Gate.apply, _pays), Backend("reference", lambda *_: None, _reference))
}


def silu_gate(
    y: Tensor,
    z: Tensor,
    skip: Tensor | None = None,
    u: Tensor | None = None,
    backend: str = "auto",
    subject: str = "gate",
) -> Tensor:
    """Multiply by SiLU(z).

    Args:
        y, z: (..., N). skip: (N,), a factor on u (..., N), which is added to y before; both or neither.
        backend: ``auto`` or a backend. subject: who asks, for the record of choices.
    Returns:
        (..., N).
    Raises:
        UsageError: an unknown backend, or one that cannot serve here.
    """
    return choose("silu_gate", BACKENDS, backend, subject, y, z, skip, u).run(y, z, skip, u)


def _amount(sizes: Sizes, backward: bool) -> int:
    """Bytes of one pass: read y, z and u, write one; then read these and the gradient, write three."""
    return (11 if backward else 4) * 4 * sizes.width * sizes.batch * sizes.window


def _inputs(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    shape = (sizes.batch, sizes.window, sizes.width)
    return {name: draw(name, *shape) for name in ("y", "gate", "input")} | {"skip": draw("skip", sizes.width)}


def _call(given: Mapping[str, Tensor], backend: str, precision: str) -> tuple[Tensor, ...]:
    return (silu_gate(given["y"], given["gate"], given["skip"], given["input"], backend),)


def _request(given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    return given["y"], given["gate"], given["skip"], given["input"]


OPERATION = Operation(
    "silu_gate",
    "(y + skip * u) * z / (1 + e^-z)",
    BACKENDS,
    "bytes",
    amount=_amount,
    inputs=_inputs,
    call=_call,
    request=_request,
)
