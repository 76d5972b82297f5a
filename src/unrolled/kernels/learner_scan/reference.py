"""The plain loop that defines the operation: token by token, with the weights of each head at every token."""

from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.kernels.learner_scan.inner import Layer, Network, Norm, deltas, layers_of, read, run, vector

__all__ = ["Inputs", "Learned", "gradient", "scan"]


class Learned(NamedTuple):
    """What heads have learned. base: (batch, heads, numbers), the weights at which errors are looked at, those before
    the open chunk. now: the same, the weights; None where they follow from the others. sums: the same, the steps summed
    up. place: int64 (batch,), tokens of the open chunk."""

    base: Tensor
    now: Tensor | None
    sums: Tensor
    place: Tensor


class Inputs(NamedTuple):
    """What the operation computes from; see :func:`unrolled.kernels.learner_scan.learner_scan`.

    q, k, v: (batch, time, heads, size). step, momentum, keep: (batch, time, heads) or None. shares: (chunk,) or None.
    start: (heads, numbers).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    step: Tensor
    shares: Tensor | None
    momentum: Tensor | None
    keep: Tensor | None
    state: Learned
    start: Tensor
    network: Network
    norm: Norm | None
    chunk: int
    reset: Tensor | None
    group: int = 0
    home: bool = False


def gradient(base: Tensor, k: Tensor, v: Tensor, network: Network, norm: Norm | None) -> Tensor:
    """The gradient of one token's error with respect to the weights, (batch, heads, numbers); k, v: (batch, heads,
    size)."""
    layers, k, v = layers_of(base, network), k.unsqueeze(-2), v.unsqueeze(-2)
    passed = run(layers, k, network)
    found = []
    for layer, x, delta in zip(layers, passed.inputs, deltas(layers, passed, v, network, norm), strict=True):
        found.append(Layer(x.mT * delta, None if layer.bias is None else delta))
    return vector(found)


def scan(given: Inputs) -> tuple[Tensor, Learned]:
    """o (batch, time, heads, size) and what is known after the last token."""
    base, now, sums, place = given.state
    steps = [None if part is None else part.unbind(1) for part in (given.momentum, given.keep, given.reset)]
    outputs = []
    for t, (q, k, v, step) in enumerate(zip(*(x.unbind(1) for x in given[:4]), strict=True)):  # type: ignore[union-attr]
        momentum, keep, reset = (None if part is None else part[t] for part in steps)
        if reset is not None:
            fresh = reset.view(-1, 1, 1)
            base, sums = torch.where(fresh, given.start, base), sums.masked_fill(fresh, 0)
            now = None if now is None else torch.where(fresh, given.start, now)
            place = place.masked_fill(reset, 0)
        opens = (place == 0).view(-1, 1, 1)
        if now is None:
            sums = sums.masked_fill(opens, 0)
        else:
            base = torch.where(opens, now, base)
        move = -step.unsqueeze(-1) * gradient(base, k, v, given.network, given.norm)
        if now is None:
            assert given.shares is not None
            sums = sums + move
            weights = base + given.shares[place].view(-1, 1, 1) * sums
            done = (place == given.chunk - 1).view(-1, 1, 1)
            base, sums = torch.where(done, weights, base), sums.masked_fill(done, 0)
        else:
            sums = move if momentum is None else momentum.unsqueeze(-1) * sums + move
            if keep is not None:
                kept = keep.unsqueeze(-1) * now
                now = kept + (1 - keep).unsqueeze(-1) * given.start if given.home else kept
            weights = now = now + sums
        place = (place + 1) % given.chunk
        o = read(layers_of(weights, given.network), q.unsqueeze(-2), given.network, given.norm)
        outputs.append(o.squeeze(-2))
    return torch.stack(outputs, 1), Learned(base, now, sums, place)
