"""The plain loop that defines the operation."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Inputs", "scan", "state_norms"]


class Inputs(NamedTuple):
    """What the operation computes from; see :func:`unrolled.kernels.matrix_scan.matrix_scan`.

    q, k, a, b: (batch, time, heads, K). v: (batch, time, heads, V). log_decay: (batch, time, heads, K) or, where
    ``by_value``, (..., V), or (..., 1). state: (batch, heads, K, V). reset: boolean (batch, time). before: o reads the
    state before the step.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    log_decay: Tensor | None
    a: Tensor | None
    b: Tensor | None
    state: Tensor
    reset: Tensor | None
    by_value: bool = False
    before: bool = False
    scale: float = 1.0


def _steps(given: Inputs) -> Iterator[tuple[Tensor, Tensor]]:
    """The state that each step begins with, after its reset, and the state after it."""
    k, v = given.k.unbind(1), given.v.unbind(1)
    decay = None if given.log_decay is None else given.log_decay.exp().unbind(1)
    a, b = (None if part is None else part.unbind(1) for part in (given.a, given.b))
    reset = None if given.reset is None else given.reset.unbind(1)
    after = given.state
    for t in range(len(k)):
        before = after if reset is None else after.masked_fill(reset[t].view(-1, 1, 1, 1), 0)
        kept = before
        if decay is not None:
            kept = before * decay[t].unsqueeze(-2 if given.by_value else -1)
        after = kept + k[t].unsqueeze(-1) * v[t].unsqueeze(-2)
        if a is not None and b is not None:
            after = after + b[t].unsqueeze(-1) * (before.mT @ a[t].unsqueeze(-1)).mT
        yield before, after


def scan(given: Inputs) -> tuple[Tensor, Tensor]:
    """o (batch, time, heads, V) and the last state, step by step."""
    outputs, after = [], given.state
    for q, (before, after) in zip(given.q.unbind(1), _steps(given), strict=True):
        o = (before if given.before else after).mT @ q.unsqueeze(-1)
        outputs.append(given.scale * o.squeeze(-1))
    return torch.stack(outputs, 1), after


def state_norms(given: Inputs) -> Tensor:
    """The Frobenius norm of each head's state after each step, (batch, time, heads)."""
    return torch.stack([torch.linalg.matrix_norm(after) for _, after in _steps(given)], 1)
