"""``diag_scan_expanded``: the recurrence of ``diag_scan`` on (batch, time, width, states), whose factors are made of
smaller tensors on the way and whose states are summed at once, so that nothing of that size is stored.

Backends: ``native`` (in C++ on a CPU), ``chunk`` (on any device, chunk by chunk through ``diag_scan``) and
``reference`` (the plain loop under autograd, which defines the operation).
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from unrolled.kernels.diag_scan_expanded import chunk, native, reference
from unrolled.kernels.dispatch import Backend, Operation, Sizes, choose

__all__ = ["BACKENDS", "OPERATION", "diag_scan_expanded"]


def _never(*_: object) -> None:
    return None


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("native", native.refuse, native.scan),
        Backend("chunk", _never, chunk.scan),
        Backend("reference", _never, reference.scan),
    )
}


def diag_scan_expanded(
    u: Tensor,
    delta: Tensor,
    decay: Tensor,
    B: Tensor | None,
    C: Tensor,
    mode: Literal["zoh", "implicit"] = "zoh",
    h0: Tensor | None = None,
    reset: Tensor | None = None,
    backend: str = "auto",
    subject: str = "",
) -> tuple[Tensor, Tensor]:
    """h(t) = a(t) h(t-1) + b(t) on (width, states), and y(t) = sum of C(t) h(t) over the states.

    zoh (Mamba, Gu and Dao 2023): a = exp(delta A), b = delta u B. implicit (Longhorn, Liu et al. 2024):
    a = 1 - delta k², b = delta u k.

    Args:
        u, delta: (batch, time, width), time >= 1.
        decay: A (width, states); in mode implicit k (batch, time, states).
        B: (batch, time, states); None in mode implicit. C: (batch, time, states).
        h0: (batch, width, states), the state before the first step; None is zero.
        reset: boolean (batch, time); where true the state before the step is zero.
        backend: ``auto``, ``reference`` or a backend. subject: who asks, for the record of choices.
    Returns:
        y (batch, time, width) and the last state (batch, width, states). Types narrower than float32 are computed in
        float32. In float32 the native backend bounds delta A to ±87, beyond which a is 0 or infinite but for a hair.
    Raises:
        UsageError: unknown backend.
    """
    if (B is None) != (mode == "implicit"):
        raise ValueError("B is given in mode zoh, and in no other")
    kind = u.dtype
    for part in (delta, decay, B, C, h0):
        kind = kind if part is None else torch.promote_types(kind, part.dtype)
    work = torch.promote_types(kind, torch.float32)
    h0 = u.new_zeros(u.shape[0], u.shape[2], C.shape[2]) if h0 is None else h0
    u, delta, decay, C, h0 = (part.to(work) for part in (u, delta, decay, C, h0))
    args = (u, delta, decay, None if B is None else B.to(work), C, h0, reset)
    y, last = choose("diag_scan_expanded", BACKENDS, backend, subject or "scan", *args).run(*args)
    return y.to(kind), last.to(kind)


_STATES = 16


def _amount(sizes: Sizes, backward: bool) -> int:
    """Some seven operations for each state forward, an exponential not counted as more than one of them, and twenty
    more back."""
    return (27 if backward else 7) * _STATES * sizes.width * sizes.batch * sizes.window


def _inputs(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    shape, small = (sizes.batch, sizes.window), _STATES
    return {
        "u": draw("u", *shape, sizes.width),
        "delta": 0.1 * draw("delta", *shape, sizes.width).square(),
        "A": -draw("A", sizes.width, small).exp(),
        "B": draw("B", *shape, small),
        "C": draw("C", *shape, small),
        "h0": draw("h0", sizes.batch, sizes.width, small),
    }


def _call(given: Mapping[str, Tensor], backend: str, precision: str) -> tuple[Tensor, ...]:
    u, delta, A, B, C, h0 = (given[name] for name in ("u", "delta", "A", "B", "C", "h0"))
    return diag_scan_expanded(u, delta, A, B, C, "zoh", h0, backend=backend)


OPERATION = Operation(
    "diag_scan_expanded",
    "h(t) = exp(delta(t) A) h(t-1) + delta(t) u(t) B(t), y(t) = C(t) h(t)",
    BACKENDS,
    "products",
    True,
    _amount,
    _inputs,
    _call,
)
