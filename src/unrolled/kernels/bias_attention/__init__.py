"""``bias_attention``: causal attention with levels or a bias, a window and keys that all see (operation K5).

Backends: ``native`` (in C++ on a CPU, with the softmax and levels), ``torch`` (its scaled_dot_product_attention, taken
on other devices), ``dense`` (all scores of the window at once) and ``reference`` (query by query under autograd, which
defines the operation).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.kernels.bias_attention import dense, native, reference
from unrolled.kernels.bias_attention.reference import EMPTY, WEIGHTS, Inputs
from unrolled.kernels.dispatch import Backend, Operation, Sizes, choose

__all__ = ["BACKENDS", "EMPTY", "OPERATION", "bias_attention"]


def _never(*_: object) -> None:
    return None


def _elsewhere(given: Inputs) -> bool:
    """Whether the call is not on a CPU, or is plain enough for torch's fused form there."""
    return given.q.device.type != "cpu" or (given.bias is None and given.level is None)


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("native", native.refuse, native.attend),
        Backend("torch", dense.refuse_torch, dense.attend_torch, _elsewhere),
        Backend("dense", _never, dense.attend),
        Backend("reference", _never, reference.attend),
    )
}


def bias_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    first: Tensor | None = None,
    level: Tensor | None = None,
    bias: Tensor | None = None,
    memory: tuple[Tensor, Tensor] | None = None,
    scale: float | None = None,
    weights: str = "softmax",
    lse: bool = False,
    backend: str = "auto",
    subject: str = "",
) -> tuple[Tensor, Tensor | None]:
    r"""Causal attention of a window over what came before it and over itself.

    y(i) = sum over the keys j that i sees of w(s(i, j)) v(j), with s(i, j) = scale q(i)'k(j) + level(i) - level(j) +
    bias(i, j). Of a decay, log f(j) at each step, the levels are the running sum: level(i) - level(j) is then the sum
    of those after j up to i (Lin et al. 2025, forgetting attention).

    Args:
        q: (batch, time, heads, size), time >= 1.
        k, v: (batch, keys, groups, size) and (batch, keys, groups, values): the ``keys - time`` before the window, then
            those of the window. heads is a multiple of groups; each group serves as many heads, one after another.
        first: int64 (batch, time) or (batch, time, heads): the first of these keys that each query sees, which begins a
            window or a document; it sees all from there up to its own, and nothing where that lies beyond its own.
            None: all.
        level: (batch, keys, heads). bias: broadcast to (batch, heads, time, keys).
        memory: keys and values (batch or 1, m, groups, ...) that every query sees, whatever ``first`` says; levels do
            not concern them, and a bias has them in front.
        scale: absent: size^-1/2. weights: ``softmax``, ``relu2`` or ``laplace``; the last two have no sum to divide by.
        lse: whether the logarithm of the sum of weights is wanted, for the softmax of a union of several calls.
        backend: ``auto``, ``reference`` or a backend. subject: who asks, for the record of choices.
    Returns:
        y (batch, time, heads, values), and the logarithm (batch, time, heads), EMPTY (-1e30) where nothing is seen,
        whose y is 0; None where it was not asked for. Types narrower than float32 are computed in float32.
    Raises:
        UsageError: shapes that do not fit, unknown weights or backend, or one that cannot serve here.
    """
    kind, work = q.dtype, torch.promote_types(q.dtype, torch.float32)
    _check(q, k, v, weights, lse)
    always = 0
    if memory is not None:
        always = memory[0].shape[1]
        k, v = (torch.cat([m.expand(q.shape[0], -1, -1, -1), x], 1) for m, x in zip(memory, (k, v), strict=True))
        first = q.new_full(q.shape[:2], 0, dtype=torch.int64) if first is None else first
        first = first + always
        if level is not None:
            level = torch.cat([level.new_zeros(level.shape[0], always, level.shape[2]), level], 1)
    parts = [part if part is None else part.to(work) for part in (q, k, v, level, bias)]
    q, k, v, level, bias = parts  # type: ignore[assignment]
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    first = first.unsqueeze(-1) if first is not None and first.dim() == 2 else first
    given = Inputs(q, k, v, first, always, level, bias, factor, weights, lse)
    y, found = choose("bias_attention", BACKENDS, backend, subject or "attention", given).run(given)
    return y.to(kind), found if found is None else found.to(kind)


def _check(q: Tensor, k: Tensor, v: Tensor, weights: str, lse: bool) -> None:
    """Raises UsageError for what does not fit together."""
    if k.shape[:3] != v.shape[:3] or k.shape[1] < q.shape[1] or k.shape[3] != q.shape[3] or q.shape[2] % k.shape[2]:
        raise UsageError(
            f"queries {tuple(q.shape)}, keys {tuple(k.shape)} and values {tuple(v.shape)} do not fit; give (batch, "
            "time, heads, size), with at least as many keys as queries and heads a multiple of theirs."
        )
    if weights not in ("softmax", *WEIGHTS):
        raise unknown_name("weights", weights, ["softmax", *WEIGHTS])
    if lse and weights != "softmax":
        raise UsageError(
            f"weights {weights!r} have no sum to divide by, so that there is no logarithm of it; leave lse out."
        )


_HEADS = 4


def _amount(sizes: Sizes, backward: bool) -> int:
    """Two products of queries and keys, of which half are seen; then five. Of a width that is no multiple of the heads,
    as if it were one head's."""
    return (14 if backward else 4) * sizes.batch * sizes.window * (sizes.window + 1) // 2 * sizes.width


def _cut(x: Tensor) -> Tensor:
    return x.unflatten(-1, (_HEADS if x.shape[-1] % _HEADS == 0 else 1, -1))


def _inputs(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    shape = sizes.batch, sizes.window, sizes.width
    return {name: _cut(draw(name, *shape)) for name in ("q", "keys", "values")}


def _levels(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    found = _inputs(sizes, draw)
    heads = found["q"].shape[2]
    return found | {"decay": -draw("decay", sizes.batch, sizes.window, heads).exp()}


def _first(sizes: Sizes, length: int) -> Tensor:
    steps = torch.arange(sizes.window) - (length - 1)
    return steps.clamp_min(0).expand(sizes.batch, -1)


def _window(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    return _inputs(sizes, draw) | {"first": _first(sizes, _seen(sizes))}


def _seen(sizes: Sizes) -> int:
    """An eighth of the window; of one key alone the weights are 1 and have no gradient."""
    return min(sizes.window, max(2, sizes.window // 8))


def _amount_window(sizes: Sizes, backward: bool) -> int:
    seen = _seen(sizes)
    pairs = sizes.window * seen - seen * (seen - 1) // 2
    return (14 if backward else 4) * sizes.batch * pairs * sizes.width


def _call(given: Mapping[str, Tensor], backend: str, precision: str) -> tuple[Tensor, ...]:
    level = given["decay"].cumsum(1) if "decay" in given else None
    first = given.get("first")
    y, _ = bias_attention(given["q"], given["keys"], given["values"], first, level, backend=backend)
    return (y,)


def _request(given: Mapping[str, Tensor]) -> tuple[Inputs]:
    level = given["decay"].cumsum(1) if "decay" in given else None
    first = given.get("first")
    first = None if first is None else first.unsqueeze(-1)
    return (Inputs(given["q"], given["keys"], given["values"], first, 0, level, None, 1.0, "softmax", False),)


def _peer(given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Torch's attention with the same mask."""
    q, k, v = (given[name].transpose(1, 2) for name in ("q", "keys", "values"))
    if set(given) == {"q", "keys", "values"}:
        return (scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2),)
    (request,) = _request(given)
    mask = dense.seen_of(request)
    if request.level is not None:
        level = request.level.transpose(1, 2)
        mask = (level.unsqueeze(-1) - level.unsqueeze(-2)).masked_fill(~mask, -torch.inf)
    return (scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2),)


OPERATION = Operation(
    "bias_attention",
    "causal attention over a window, with levels or a bias",
    BACKENDS,
    "products",
    True,
    _amount,
    _inputs,
    _call,
    peer=("scaled_dot_product_attention with the same mask", _peer),
    forms={"window": _window, "decay": _levels},
    form_amounts={"window": _amount_window},
    request=_request,
)
