"""``matrix_scan``: S(t) = Diag(e^g(t)) S(t-1) + b(t) (a(t)^T S(t-1)) + k(t) v(t)^T, read as S(t)^T q(t) (operation K2).

One operation for all matrix states. With g alone it decays (linear attention, RetNet, Mamba-2, GLA, HGRN2, mLSTM),
per head or per key, or, for the first pass of gated slots, per value. With a = -e^g k̂, b = k = β k̂ it is the delta
rule (:func:`delta_scan`). With a and b free it is a diagonal plus a matrix of rank one (RWKV-7). With a phase beside
the decay the state is complex (:func:`complex_scan`).

Backends: ``native`` (the loop in C++ on a CPU), ``fla`` (flash-linear-attention, on a GPU where it is installed),
``chunk`` (products over chunks of the window, any device), ``quadratic`` (one chunk for the window: the form that
attention has) and ``reference`` (the plain loop under autograd, which defines the operation).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from unrolled.core.errors import UnrolledError
from unrolled.kernels.dispatch import Backend, Operation, Sizes, choose
from unrolled.kernels.matrix_scan import chunk, fla, native, reference, rotated
from unrolled.kernels.matrix_scan.reference import Inputs, state_norms

__all__ = ["BACKENDS", "OPERATION", "Inputs", "complex_scan", "delta_scan", "matrix_scan", "state_norms"]


def _quadratic(given: Inputs) -> tuple[Tensor, Tensor]:
    return chunk.scan(given, given.q.shape[1])


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("native", native.refuse, native.scan),
        Backend("fla", fla.refuse, fla.scan),
        Backend("chunk", chunk.refuse, chunk.scan),
        Backend("quadratic", chunk.refuse, _quadratic, pays=lambda *_: False),
        Backend("reference", lambda *_: None, reference.scan),
    )
}


def matrix_scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None = None,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    bonus: Tensor | None = None,
    by_value: bool = False,
    scale: float = 1.0,
    state: Tensor | None = None,
    reset: Tensor | None = None,
    backend: str = "auto",
    subject: str = "",
) -> tuple[Tensor, Tensor]:
    """Run the recurrence over a window.

    Args:
        q, k: (batch, time, heads, K), time >= 1. v: (batch, time, heads, V). Heads that share keys: by ``expand``.
        log_decay: g <= 0: (batch, time, heads) for a head's whole state; (batch, time, heads, K) by key or, where
            ``by_value``, (batch, time, heads, V) by value; None is no decay.
        a, b: (batch, time, heads, K), the rank-one part, which reads the state before its decay; both or neither.
        bonus: (heads, K), or anything that broadcasts to k. With it o reads the state before the step, and the present
            token with this weight: scale (S(t-1) + Diag(bonus) k v^T)^T q.
        scale: on o. Papers have 1, flash-linear-attention K^(-1/2).
        state: (batch, heads, K, V), before the first step; None is zero.
        reset: boolean (batch, time); where true the step finds a state of zeros.
        backend: ``auto``, ``reference`` or a backend. subject: who asks, for the record of choices.
    Returns:
        o (batch, time, heads, V) and the last state. Types narrower than float32 are computed in float32.
    Raises:
        UsageError: unknown backend, or a named one that cannot serve this call.
        UnrolledError: a without b, or a rank-one part beside a decay by value.
    """
    if (a is None) != (b is None):
        raise UnrolledError("matrix_scan takes a and b together or neither; give both.")
    if by_value and a is not None:
        raise UnrolledError("matrix_scan has no rank-one part beside a decay by value; leave out one of the two.")
    work, kind, shared = torch.promote_types(q.dtype, torch.float32), q.dtype, b is k
    state = q.new_zeros(q.shape[0], *q.shape[2:], v.shape[-1]) if state is None else state
    if log_decay is not None and log_decay.dim() == 3:
        log_decay = log_decay.unsqueeze(-1)
    q, k, v, state = (part.to(work) for part in (q, k, v, state))
    log_decay, a = (None if part is None else part.to(work) for part in (log_decay, a))
    b = k if shared else None if b is None else b.to(work)
    given = Inputs(q, k, v, log_decay, a, b, state, reset, by_value, bonus is not None, scale)
    o, last = choose("matrix_scan", BACKENDS, backend, subject or "scan", given).run(given)
    if bonus is not None:
        o = o + scale * (given.q * bonus * given.k).sum(-1, keepdim=True) * given.v
    return o.to(kind), last.to(kind)


def delta_scan(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """The (gated) delta rule: S <- e^g S, then S <- S + beta k (v - S^T k)^T (Yang et al. 2024, arXiv:2412.06464), so
    that the error is read from the decayed state.

    Args:
        k: unit keys, or others at the risk of the state's growth. beta: (batch, time, heads). The others, and what is
            returned, as in :func:`matrix_scan`.
    """
    if log_decay is not None and log_decay.dim() == 3:
        log_decay = log_decay.unsqueeze(-1)
    written = beta.unsqueeze(-1) * k
    a = -k if log_decay is None else -log_decay.exp() * k
    return matrix_scan(q, written, v, log_decay, a, written, **options)


def complex_scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    phase: Tensor,
    *,
    scale: float = 1.0,
    state: Tensor | None = None,
    reset: Tensor | None = None,
    backend: str = "auto",
    subject: str = "",
) -> tuple[Tensor, Tensor]:
    """A complex state: S(t) = e^(g(t) + i phi(t)) S(t-1) + k(t) v(t)^T, o(t) = scale Re(S(t)^T q(t)).

    Args:
        phase: phi in radians; it and log_decay (batch, time, heads), or (batch, time, heads, K) by key. state:
            (batch, heads, K, V), complex. The others, and what is raised, as in :func:`matrix_scan`.
    Returns:
        o (batch, time, heads, V), real, and the last state, complex.
    """
    log_decay, phase = (part.unsqueeze(-1) if part.dim() == 3 else part for part in (log_decay, phase))
    if state is None:
        kind = torch.complex128 if q.dtype == torch.float64 else torch.complex64
        state = torch.zeros(q.shape[0], *q.shape[2:], v.shape[-1], dtype=kind, device=q.device)
    if backend == "reference":
        choose("matrix_scan", BACKENDS, backend, subject or "scan", None)
        return rotated.reference(q, k, v, log_decay, phase, state, reset, scale)

    def scan(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        options: dict[str, Any] = {"scale": scale, "reset": reset, "backend": backend, "subject": subject}
        return matrix_scan(q, k, v, log_decay, state=state, **options)

    return rotated.rotated(scan, q, k, v, log_decay, phase, state)


def _shape(sizes: Sizes) -> tuple[int, int, int, int]:
    """(batch, time, heads, K): heads of 64 where the width has whole ones, else one."""
    heads = sizes.width // 64 if sizes.width % 64 == 0 else 1
    return sizes.batch, sizes.window, heads, sizes.width // heads


def _head(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    *rows, size = _shape(sizes)
    given = {name: draw(name, *rows, size) * size**-0.5 for name in ("q", "k")} | {"v": draw("v", *rows, size)}
    state = draw("state", sizes.batch, rows[-1], size, size)
    return given | {"log_decay": -0.1 * draw("log_decay", *rows).square(), "state": state}


def _by_channel(sizes: Sizes, draw: Callable[..., Tensor]) -> Tensor:
    return -0.1 * draw("log_decay", *_shape(sizes)).square()


def _key(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    return _head(sizes, draw) | {"log_decay": _by_channel(sizes, draw)}


def _value(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    given = _head(sizes, draw)
    del given["log_decay"]
    return given | {"log_decay_of_values": _by_channel(sizes, draw)}


def _delta(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    given = _head(sizes, draw)
    unit = torch.nn.functional.normalize(given["k"], dim=-1)
    return given | {"k": unit, "beta": draw("beta", *unit.shape[:3]).sigmoid()}


def _rank_one(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    unit = torch.nn.functional.normalize(draw("a", *_shape(sizes)), dim=-1)
    return _key(sizes, draw) | {"a": -unit, "b": unit * draw("b", *unit.shape).sigmoid()}


def _call(inputs: Mapping[str, Tensor], backend: str, precision: str) -> tuple[Tensor, ...]:
    given: dict[str, Any] = dict(inputs)
    if "beta" in given:
        return delta_scan(**given, backend=backend)
    if "log_decay_of_values" in given:
        given["log_decay"] = given.pop("log_decay_of_values")
        return matrix_scan(**given, by_value=True, backend=backend)
    return matrix_scan(**given, backend=backend)


def _request(given: Mapping[str, Tensor]) -> tuple[Inputs]:
    return (Inputs(given["q"], given["k"], given["v"], None, None, None, given["state"], None),)


def _attention(given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    q, k, v = (given[name].transpose(1, 2) for name in ("q", "k", "v"))
    return (torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2),)


def _amount(sizes: Sizes, backward: bool) -> int:
    """Operations of the loop with a decay: the update 3 and the reading 2 for each number of the state, three times as
    many back."""
    batch, time, heads, size = _shape(sizes)
    return (4 if backward else 1) * 5 * batch * time * heads * size * size


OPERATION = Operation(
    "matrix_scan",
    "S(t) = Diag(e^g(t)) S(t-1) + b(t) (a(t)^T S(t-1)) + k(t) v(t)^T, o(t) = S(t)^T q(t); a decay by head, or the "
    "forms key, value, delta and rank_one",
    BACKENDS,
    "products",
    of_cells=True,
    amount=_amount,
    inputs=_head,
    call=_call,
    peer=("causal attention", _attention),
    forms={"key": _key, "value": _value, "delta": _delta, "rank_one": _rank_one},
    request=_request,
)
