"""``learner_scan``: a small network in each head learns from every token, and is read at every token (operation H1).

Its weights are the state. Token t has a key k, a value v and a query q; the error of the network at the key,
half of |f(k) - v|², moves the weights, and f(q) with the moved weights is what comes out. Errors of a chunk of tokens
are all looked at with the weights before the chunk, so that they are known together (TTT, Sun et al. 2024; Titans,
Behrouz et al. 2025).

Backends: ``dual`` (products over chunks of the window, any device) and ``reference`` (the weights at every token one
after another under autograd, which defines the operation).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from unrolled.core.errors import UnrolledError
from unrolled.kernels.dispatch import Backend, Operation, Sizes, choose
from unrolled.kernels.learner_scan import dual, reference
from unrolled.kernels.learner_scan.inner import Network, Norm, layers_of, read
from unrolled.kernels.learner_scan.reference import Inputs, Learned

__all__ = ["BACKENDS", "OPERATION", "Learned", "Network", "Norm", "learner_scan", "read_with"]

BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("dual", lambda *_: None, dual.scan),
        Backend("reference", lambda *_: None, reference.scan),
    )
}


def learner_scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    step: Tensor,
    network: Network,
    start: Tensor,
    state: Learned,
    *,
    shares: Tensor | None = None,
    momentum: Tensor | None = None,
    keep: Tensor | None = None,
    norm: Norm | None = None,
    chunk: int = 16,
    reset: Tensor | None = None,
    group: int = 0,
    home: bool = False,
    backend: str = "auto",
    subject: str = "",
) -> tuple[Tensor, Learned]:
    r"""Learn from a window, and read at each of its tokens.

    With g(t) the gradient of the error of token t at the weights before its chunk, W', the weights W(t) that token t
    reads with are one of

    - with ``shares``: W' + shares[i] S(t), where S(t) = S(t-1) - step(t) g(t) begins each chunk at zero and i is the
      token's place in its chunk. The next chunk begins with the weights of the last token of this.
    - without: keep(t) W(t-1) + S(t), where S(t) = momentum(t) S(t-1) - step(t) g(t) goes on over chunks.

    A window may end, and a document begin, anywhere in a chunk: what the open chunk has summed is in the state.

    Args:
        q, k, v: (batch, time, heads, size), time >= 1; size is the first and the last of ``network.sizes``.
        step: (batch, time, heads). momentum, keep: the same or None, which is no momentum, and a keep of 1.
        shares: (chunk,), or None.
        start: (heads, numbers), the weights that a document begins with; ``network.numbers()`` of them.
        state: before the window. ``now`` is None with ``shares``, and in no other case.
        norm: the output is the input plus the layer norm of what the network gives; None: the network alone.
        reset: boolean (batch, time); where true the row begins anew with ``start`` before the token.
        group: so many pieces of chunks are computed again in the backward pass in place of being kept; 0: all are kept.
        home: the weights decay to ``start`` in place of zero: (1 - keep) start is added.
        backend: ``auto``, ``reference`` or a backend. subject: who asks, for the record of choices.
    Returns:
        o (batch, time, heads, size) and the state. Types narrower than float32 are computed in float32.
    Raises:
        UsageError: unknown backend.
        UnrolledError: shares beside a momentum or a keep, or a state of the other kind.
    """
    if (shares is not None) != (state.now is None) or (shares is not None and not (momentum is None and keep is None)):
        raise UnrolledError("learner_scan takes shares and no weights of now, or weights of now and no shares.")
    kind, work = q.dtype, torch.promote_types(q.dtype, torch.float32)

    def wide(x: Tensor | None) -> Any:
        return None if x is None else x.to(work)

    state = Learned(wide(state.base), wide(state.now), wide(state.sums), state.place)
    norm = None if norm is None else Norm(wide(norm.gain), wide(norm.bias))
    given = Inputs(
        wide(q), wide(k), wide(v), wide(step), wide(shares), wide(momentum), wide(keep), state, wide(start), network,
        norm, chunk, reset, group, home,
    )  # fmt: skip
    o, last = choose("learner_scan", BACKENDS, backend, subject or "scan", given).run(given)
    now = None if last.now is None else last.now.to(kind)
    return o.to(kind), Learned(last.base.to(kind), now, last.sums.to(kind), last.place)


def read_with(weights: Tensor, q: Tensor, network: Network, norm: Norm | None = None) -> Tensor:
    """What fixed weights (batch, heads, numbers) give for q (batch, time, heads, size), in the same form."""
    return read(layers_of(weights, network), q.transpose(1, 2), network, norm).transpose(1, 2)


_CHUNK = 16


def _network(sizes: Sizes, deep: bool = False) -> tuple[int, Network]:
    """Heads of 64 where the width has whole ones, else one."""
    heads = sizes.width // 64 if sizes.width % 64 == 0 else 1
    size = sizes.width // heads
    return heads, Network((size, 4 * size, size) if deep else (size, size), biases=True)


def _inputs(sizes: Sizes, draw: Callable[..., Tensor], deep: bool = False) -> dict[str, Tensor]:
    heads, network = _network(sizes, deep)
    size, numbers = sizes.width // heads, network.numbers()
    shape = sizes.batch, sizes.window, heads
    return {
        **{name: draw(name, *shape, size) for name in ("q", "key", "value")},
        "step": draw("step", *shape).sigmoid() / size,
        "shares": 1 / (1 + torch.arange(_CHUNK, dtype=draw("q", 1).dtype)),
        "start": draw("start", heads, numbers) * size**-0.5,
        "gain": 1 + 0.1 * draw("gains", heads, size),
        "bias": 0.1 * draw("biases", heads, size),
    }


def _deep(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    return _inputs(sizes, draw, True)


def _momentum(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    given = _inputs(sizes, draw, True)
    shape = given["step"].shape
    for name in ("shares", "gain", "bias"):
        del given[name]
    return given | {"momentum": draw("momentum", *shape).sigmoid(), "keep": draw("keeps", *shape).sigmoid()}


def _request(given: Mapping[str, Tensor]) -> tuple[Inputs]:
    q, start, shares = given["q"], given["start"], given.get("shares")
    size, batch = q.shape[-1], q.shape[0]
    linear = start.shape[1] == (size + 1) * size
    network = Network((size, size) if linear else (size, 4 * size, size), biases=True)
    base = start.expand(batch, -1, -1)
    place = torch.zeros(batch, dtype=torch.int64, device=q.device)
    state = Learned(base, None if shares is not None else base, torch.zeros_like(base), place)
    norm = Norm(given["gain"], given["bias"]) if "gain" in given else None
    gates = given.get("momentum"), given.get("keep")
    tokens = (q, given["key"], given["value"], given["step"], shares, *gates)
    return (Inputs(*tokens, state, start, network, norm, _CHUNK, None),)


def _call(given: Mapping[str, Tensor], backend: str, precision: str) -> tuple[Tensor, ...]:
    (x,) = _request(given)
    gates: dict[str, Any] = {name: getattr(x, name) for name in ("shares", "momentum", "keep", "norm", "chunk")}
    o, state = learner_scan(x.q, x.k, x.v, x.step, x.network, x.start, x.state, **gates, backend=backend)
    return (o, *(part for part in state if part is not None and part.is_floating_point()))


def _amount_of(sizes: Sizes, backward: bool, deep: bool, reads: int) -> int:
    """Operations of the dual form: the errors, the reading with each of the sums of weights and their steps, and the
    pairs of a chunk; twice as many back."""
    heads, network = _network(sizes, deep)
    shapes = network.shapes()
    all_weights, above = sum(a * b for a, b in shapes), sum(a * b for a, b in shapes[1:])
    weights = all_weights * (1 + 2 * reads) + above
    pairs = _CHUNK * sum(a + b for a, b in shapes)
    return (3 if backward else 1) * 2 * sizes.batch * sizes.window * heads * (weights + pairs)


def _amount(sizes: Sizes, backward: bool) -> int:
    return _amount_of(sizes, backward, False, 1)


def _amount_deep(sizes: Sizes, backward: bool) -> int:
    return _amount_of(sizes, backward, True, 1)


def _amount_momentum(sizes: Sizes, backward: bool) -> int:
    return _amount_of(sizes, backward, True, 2)


OPERATION = Operation(
    "learner_scan",
    "W(t), moved by the gradient of |f(k; W') - v|²/2 at the weights W' before the chunk, read as f(q; W(t)); f linear "
    "with shared steps, or the forms deep and momentum",
    BACKENDS,
    "products",
    of_cells=True,
    amount=_amount,
    inputs=_inputs,
    call=_call,
    forms={"deep": _deep, "momentum": _momentum},
    form_amounts={"deep": _amount_deep, "momentum": _amount_momentum},
    request=_request,
)
