"""Attention query by query, which defines the operation."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["EMPTY", "WEIGHTS", "Inputs", "attend"]

EMPTY = -1e30
"""Logarithm of the sum of weights where a query sees no key: finite, so that nothing becomes NaN."""

_MEAN, _DEVIATION = 0.5**0.5, (4 * torch.pi) ** -0.5


def _laplace(s: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf((s - _MEAN) / (_DEVIATION * 2**0.5)))


WEIGHTS: Mapping[str, Callable[[Tensor], Tensor]] = {"relu2": lambda s: torch.relu(s).square(), "laplace": _laplace}
"""Weights of scores one by one, in the place of the softmax: the squared relu, and Mega's approximation of it (Ma et
al. 2022, equation 15)."""


class Inputs(NamedTuple):
    """What a backend is given.

    q: (batch, time, heads, size). k, v: (batch, keys, groups, size or values), the last ``time`` of them at the
        queries.
    first: int64 (batch, time, 1 or heads), the first key that each query sees, or None. always: how many keys at the
    front all queries see. level: (batch, keys, heads) or None. bias: broadcast to (batch, heads, time, keys), or None.
    weights: ``softmax`` or one of WEIGHTS. lse: whether the logarithm of the sum of weights is asked for.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    first: Tensor | None
    always: int
    level: Tensor | None
    bias: Tensor | None
    scale: float
    weights: str
    lse: bool


def attend(given: Inputs) -> tuple[Tensor, Tensor | None]:
    """y (batch, time, heads, values), and the logarithm of the sum of weights (batch, time, heads) if it is asked
    for."""
    q, time, keys = given.q, given.q.shape[1], given.k.shape[1]
    share = q.shape[2] // given.k.shape[2]
    k, v = (part.repeat_interleave(share, 2) for part in (given.k, given.v))
    place = torch.arange(keys, device=q.device)
    outputs, sums = [], []
    for t in range(time):
        own = keys - time + t
        s = given.scale * torch.einsum("bhn,bjhn->bjh", q[:, t], k[:, : own + 1])
        if given.level is not None:
            between = given.level[:, own : own + 1] - given.level[:, : own + 1]
            s = torch.cat([s[:, : given.always], s[:, given.always :] + between[:, given.always :]], 1)
        if given.bias is not None:
            whole = given.bias.expand(q.shape[0], q.shape[2], time, keys)
            s = s + whole[:, :, t, : own + 1].transpose(1, 2)
        so_far = place[: own + 1].view(1, -1, 1)
        seen = torch.ones_like(s, dtype=torch.bool)  # (batch, keys so far, heads)
        if given.first is not None:
            seen = seen & ((so_far >= given.first[:, t : t + 1]) | (so_far < given.always))
        if given.weights == "softmax":
            s = s.masked_fill(~seen, -torch.inf)
            top = s.amax(1, keepdim=True).detach().clamp_min(EMPTY)
            w = torch.exp(s - top)
            total = w.sum(1, keepdim=True)
            some = seen.any(1, keepdim=True)
            w = w / torch.where(some, total, 1)
            sums.append(torch.where(some, top + torch.where(some, total, 1).log(), EMPTY).squeeze(1))
        else:
            w = WEIGHTS[given.weights](s).masked_fill(~seen, 0)
        outputs.append(torch.einsum("bjh,bjhn->bhn", w, v[:, : own + 1]))
    return torch.stack(outputs, 1), torch.stack(sums, 1) if given.lse else None
