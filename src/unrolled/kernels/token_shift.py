"""``token_shift``: x(t) + share * (x(t-1) - x(t)) for several shares of the input before (Peng et al. 2023, RWKV).

Backends: ``native`` (in C++ on a CPU, one pass for all shares forward and one back, where torch makes seven for each)
and ``reference``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.cpu import library, why_no_library
from unrolled.kernels.dispatch import Backend, Operation, Sizes, choose

__all__ = ["BACKENDS", "OPERATION", "token_shift"]

_FEW = 16384


def _refuse(x: Tensor, before: Tensor, shares: Tensor, reset: Tensor | None = None) -> str | None:
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return "it computes on a CPU in float32 and float64"
    if before.dtype != x.dtype or shares.dtype != x.dtype:
        return "it computes in one type"
    return why_no_library()


def _pays(x: Tensor, before: Tensor, shares: Tensor, reset: Tensor | None = None) -> bool:
    """Whether there is enough to compute: a call of the library takes longer than torch's on few numbers."""
    return x.numel() * len(shares) >= _FEW


def _addresses(tensors: Sequence[Tensor | None]) -> Tensor:
    return torch.tensor([0 if one is None else one.data_ptr() for one in tensors], dtype=torch.int64)


class _Shift(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, before: Tensor, shares: Tensor, reset: Tensor | None) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        parts = x.contiguous(), before.contiguous(), shares.contiguous(), None if reset is None else reset.contiguous()
        ctx.save_for_backward(*parts)
        ctx.sizes = (*x.shape, len(shares))
        mixed = tuple(torch.empty_like(parts[0]) for _ in range(len(shares)))
        threads = max(1, min(torch.get_num_threads(), len(x)))
        library().call("shift_forward", x.dtype, *ctx.sizes, *parts, _addresses(mixed), threads)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        parts = ctx.saved_tensors
        x, before, shares, _ = parts
        held = [None if grad is None else grad.contiguous() for grad in grads]
        grad_x, grad_before, sums = torch.empty_like(x), torch.zeros_like(before), x.new_zeros(len(x), *shares.shape)
        threads = max(1, min(torch.get_num_threads(), len(x)))
        given = (*ctx.sizes, *parts, _addresses(held), grad_x, grad_before, sums, threads)
        library().call("shift_backward", x.dtype, *given)
        return grad_x, grad_before, sums.sum(0), None


def _reference(x: Tensor, before: Tensor, shares: Tensor, reset: Tensor | None = None) -> tuple[Tensor, ...]:
    last = torch.cat([before.unsqueeze(1), x[:, :-1]], 1)
    last = last if reset is None else last.masked_fill(reset.unsqueeze(-1), 0)
    return tuple(torch.lerp(x, last, share) for share in shares)


BACKENDS = {
    backend.name: backend
    for backend in (Backend("native", _refuse, _Shift.apply, _pays), Backend("reference", lambda *_: None, _reference))
}


def token_shift(
    x: Tensor,
    before: Tensor,
    shares: Tensor,
    reset: Tensor | None = None,
    backend: str = "auto",
    subject: str = "shift",
) -> tuple[Tensor, ...]:
    """Mix each input with the one before it.

    Args:
        x: (batch, time, N). before: (batch, N), the input before the window. shares: (M, N), of the input before.
        reset: boolean (batch, time) or None; where true the input before is zero.
        backend: ``auto`` or a backend. subject: who asks, for the record of choices.
    Returns:
        M mixtures (batch, time, N).
    Raises:
        UsageError: an unknown backend, or one that cannot serve here.
    """
    given = (x, before, shares, reset)
    return choose("token_shift", BACKENDS, backend, subject, *given).run(*given)


_SHARES = 3


def _amount(sizes: Sizes, backward: bool) -> int:
    """Bytes of one pass: read x, write the mixtures; then read their gradients and x, write that of x."""
    numbers = 1 + _SHARES + (2 + _SHARES if backward else 0)
    return numbers * 4 * sizes.width * sizes.batch * sizes.window


def _inputs(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    x, before = draw("x", sizes.batch, sizes.window, sizes.width), draw("before", sizes.batch, sizes.width)
    return {"x": x, "before": before, "shares": draw("shares", _SHARES, sizes.width).sigmoid()}


def _call(given: Mapping[str, Tensor], backend: str, precision: str) -> tuple[Tensor, ...]:
    return token_shift(given["x"], given["before"], given["shares"], None, backend)


OPERATION = Operation(
    "token_shift",
    "x(t) + share * (x(t-1) - x(t)) for several shares",
    BACKENDS,
    "bytes",
    amount=_amount,
    inputs=_inputs,
    call=_call,
)
