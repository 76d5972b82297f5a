"""``diag_scan``: h(t) = a(t) h(t-1) + b(t), elementwise (operation K1).

Backends: ``native`` (in C++ on a CPU, once ``unrolled build`` has been run), ``doubling`` (log2(time) passes over the
window, taken on other devices), ``inplace`` (one time-major pass in place, with a backward written by hand) and
``reference`` (the plain loop under autograd, which defines the operation).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from unrolled.kernels.diag_scan import doubling, inplace, native, reference
from unrolled.kernels.dispatch import Backend, Operation, Sizes, choose

__all__ = ["BACKENDS", "OPERATION", "diag_scan"]


def _never(*_: object) -> None:
    return None


def _elsewhere(a: Tensor, b: Tensor, *_: object) -> bool:
    """Whether the call is not on a CPU: on one, log2(time) passes over memory take longer than one."""
    return b.device.type != "cpu"


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("native", native.refuse, native.scan),
        Backend("doubling", _never, doubling.scan, _elsewhere),
        Backend("inplace", _never, inplace.scan),
        Backend("reference", _never, reference.scan),
    )
}


def diag_scan(
    a: Tensor,
    b: Tensor,
    h0: Tensor | None = None,
    reset: Tensor | None = None,
    initial: Tensor | None = None,
    backend: str = "auto",
    subject: str = "",
) -> tuple[Tensor, Tensor]:
    """Run the recurrence over a window.

    Args:
        a: factors, real or complex, that broadcast to b: (batch, time, width), (width,), (batch, time, 1)... They are
            not stored at full size, nor is their gradient, where the backend is native.
        b: (batch, time, width), time >= 1, real or complex.
        h0: (batch, width), the state before the first step; None is zero.
        reset: boolean (batch, time); where true h(t-1) is ``initial``.
        initial: (batch, width) or (width,); None is zero.
        backend: ``auto``, ``reference`` or a backend. subject: who asks, for the record of choices.
    Returns:
        h (batch, time, width), in memory as b is or time-major, and the last state (batch, width). Types narrower than
        float32 are computed in float32.
    Raises:
        UsageError: unknown backend.
    """
    kind = torch.promote_types(a.dtype, b.dtype)
    for part in (h0, initial):
        kind = kind if part is None else torch.promote_types(kind, part.dtype)
    work = torch.promote_types(kind, torch.float32)
    zero = b.new_zeros(b.shape[0], b.shape[2], dtype=work)
    h0 = zero if h0 is None else h0.to(work)
    initial = zero if initial is None else initial.to(work).expand_as(zero)
    args = (a.to(work)[(None,) * (b.dim() - a.dim())], b.to(work), h0, reset, initial)
    h, last = choose("diag_scan", BACKENDS, backend, subject or "scan", *args).run(*args)
    return h.to(kind), last.to(kind)


def _amount(sizes: Sizes, backward: bool) -> int:
    """Bytes of one fused pass: read a and b, write h; then read a, h and the gradient of h, write those of a and b."""
    return (8 if backward else 3) * 4 * sizes.width * sizes.batch * sizes.window


def _inputs(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    shape = (sizes.batch, sizes.window, sizes.width)
    return {"a": draw("a", *shape).sigmoid(), "b": draw("b", *shape), "h0": draw("h0", sizes.batch, sizes.width)}


def _complex_amount(sizes: Sizes, backward: bool) -> int:
    """Each number is two."""
    return 2 * _amount(sizes, backward)


def _complex_inputs(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    """Complex numbers as pairs of real ones, a within the unit circle."""
    shape = (sizes.batch, sizes.window, sizes.width)
    angle = draw("angle", *shape)
    a = draw("a", *shape).sigmoid().unsqueeze(-1) * torch.stack([angle.cos(), angle.sin()], -1)
    return {"a": a, "b": draw("b", *shape, 2), "h0": draw("h0", sizes.batch, sizes.width, 2)}


def _numbers(given: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """a, b and h0, complex where they are given as pairs."""
    a, b, h0 = given["a"], given["b"], given["h0"]
    if b.dim() == 3:
        return a, b, h0
    return torch.view_as_complex(a), torch.view_as_complex(b), torch.view_as_complex(h0)


def _real(*outputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.view_as_real(one) if one.is_complex() else one for one in outputs)


def _call(given: Mapping[str, Tensor], backend: str, precision: str) -> tuple[Tensor, ...]:
    return _real(*diag_scan(*_numbers(given), backend=backend))


def _published(given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """The loop that indexes time at each step."""
    (a, b, h), outputs = _numbers(given), []
    for t in range(b.shape[1]):
        h = a[:, t] * h + b[:, t]
        outputs.append(h)
    return _real(torch.stack(outputs, 1), h)


def _request(given: Mapping[str, Tensor]) -> tuple[Any, ...]:
    return _numbers(given)


OPERATION = Operation(
    "diag_scan",
    "h(t) = a(t) h(t-1) + b(t), elementwise; or, as the form complex, of complex numbers",
    BACKENDS,
    "bytes",
    True,
    _amount,
    _inputs,
    _call,
    _published,
    forms={"complex": _complex_inputs},
    form_amounts={"complex": _complex_amount},
    request=_request,
)
