"""``softmax_scan``: the mean of all values so far, weighted by the softmax of their scores, with decay (operation K1s).

Backends: ``native`` (in C++ on a CPU), ``closed`` (without a loop over time, taken on other devices) and ``reference``
(the plain loop under autograd, which defines the operation).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.kernels.dispatch import Backend, Operation, Sizes, choose
from unrolled.kernels.softmax_scan import closed, native, reference
from unrolled.kernels.softmax_scan.reference import EMPTY

__all__ = ["BACKENDS", "OPERATION", "Weighted", "empty", "softmax_scan"]


def _never(*_: object) -> None:
    return None


def _elsewhere(s: Tensor, *_: object) -> bool:
    """Whether the call is not on a CPU: on one, log2(time) passes over memory take longer than a loop."""
    return s.device.type != "cpu"


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("native", native.refuse, native.scan),
        Backend("closed", _never, closed.scan, _elsewhere),
        Backend("reference", _never, reference.scan),
    )
}


class Weighted(NamedTuple):
    """What was seen, in units of e^m. m: the largest decayed score; u: sum of weights, both (batch, width or heads);
    w: sum of weighted values, as a value is."""

    m: Tensor
    u: Tensor
    w: Tensor


def empty(w: Tensor) -> Weighted:
    """The state that has seen nothing, for values like w: (batch, width) or (batch, heads, size)."""
    flat = w.new_zeros(w.shape[:2])
    return Weighted(flat + EMPTY, flat, torch.zeros_like(w))


def softmax_scan(
    s: Tensor,
    v: Tensor,
    log_decay: Tensor | None = None,
    bonus: Tensor | None = None,
    state: Weighted | None = None,
    reset: Tensor | None = None,
    backend: str = "auto",
    subject: str = "",
) -> tuple[Tensor, Weighted]:
    r"""Weighted means of all values so far.

    m(t) = max(m(t-1) + log_decay(t), s(t)), and u and w alike with weights e^(... - m(t)); y = w / u. With a bonus, y
    is made of the state before t and of v(t) with the weight e^(bonus + s(t)) (RWKV-4, Peng et al. 2023); without
    decay and bonus it is the softmax attention of one query over each prefix (Aaren, Feng et al. 2024).

    Args:
        s: scores (batch, time, width), time >= 1, with v (batch, time, width); or (batch, time, heads) with v
            (batch, time, heads, size).
        log_decay: at most 0, broadcast to s; None is 0. bonus: (width,) or (heads,); None: there is none.
        state: of the last call; None has seen nothing. reset: boolean (batch, time); where true the state is emptied
            before the step.
        backend: ``auto``, ``reference`` or a backend. subject: who asks, for the record of choices.
    Returns:
        y like v, and the state. Types narrower than float32 are computed in float32.
    Raises:
        UsageError: unknown backend.
    """
    state = empty(v[:, 0]) if state is None else state
    kind = torch.promote_types(s.dtype, v.dtype)
    for part in (log_decay, bonus, *state):
        kind = kind if part is None else torch.promote_types(kind, part.dtype)
    work = torch.promote_types(kind, torch.float32)
    size = v.shape[3] if v.dim() == 4 else 1

    def wide(part: Tensor | None) -> Tensor | None:
        """What there is of each head, for each of its values."""
        part = part if part is None else part.to(work)
        return part if part is None or size == 1 else part.repeat_interleave(size, -1)

    if log_decay is not None and log_decay.shape != s.shape[2:]:
        log_decay = log_decay.expand_as(s)
    values = v.to(work).flatten(2)
    start = (wide(state.m), wide(state.u), state.w.to(work).flatten(1))
    args = (wide(s), values, wide(log_decay), wide(bonus), *start, reset)
    y, m, u, w = choose("softmax_scan", BACKENDS, backend, subject or "scan", *args).run(*args)
    m, u = (part if size == 1 else part[:, ::size] for part in (m, u))
    new = Weighted(m.to(kind), u.to(kind), w.to(kind).view(v[:, 0].shape))
    return y.to(kind).view(v.shape), new


def _amount(sizes: Sizes, backward: bool) -> int:
    """Bytes of one fused pass: read s and v, write y and the states; then read these and a gradient, write two."""
    return (14 if backward else 6) * 4 * sizes.width * sizes.batch * sizes.window


def _inputs(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    shape, row = (sizes.batch, sizes.window, sizes.width), (sizes.batch, sizes.width)
    return {
        "s": 3 * draw("s", *shape),
        "values": draw("values", *shape),
        "log_decay": -draw("decay", sizes.width).exp(),
        "bonus": draw("bonuses", sizes.width),
        "m": draw("largest", *row),
        "u": draw("weight", *row).exp(),
        "w": draw("weighted", *row),
    }


def _call(given: Mapping[str, Tensor], backend: str, precision: str) -> tuple[Tensor, ...]:
    start = Weighted(given["m"], given["u"], given["w"])
    y, state = softmax_scan(given["s"], given["values"], given["log_decay"], given["bonus"], start, backend=backend)
    return (y, *state)


OPERATION = Operation(
    "softmax_scan",
    "mean of all values so far by the softmax of their decayed scores",
    BACKENDS,
    "bytes",
    True,
    _amount,
    _inputs,
    _call,
)
