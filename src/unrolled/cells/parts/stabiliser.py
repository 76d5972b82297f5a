"""The stabiliser of exponential gates."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Stabilised", "stabilise"]


class Stabilised(NamedTuple):
    """Gates in units of e^m. log_decay, log_write: (batch, time, heads), at most 0. top: m, (batch, time, heads)."""

    log_decay: Tensor
    log_write: Tensor
    top: Tensor


def stabilise(log_f: Tensor, log_i: Tensor, start: Tensor, reset: Tensor | None = None) -> Stabilised:
    """m(t) = max(log f(t) + m(t-1), log i(t)), in its closed form: with F the sums of log f, m(t) - F(t) is the largest
    of log i(j) - F(j) up to t, and of the start.

    Args:
        log_f, log_i: (batch, time, heads). start: (batch, heads), m before the window; at the first token and at a
        reset
            it is 0. reset: boolean (batch, time) or None.
    """
    kind, log_f, log_i = log_f.dtype, log_f.double(), log_i.double()
    total = log_f.cumsum(1)
    level = log_i - total
    first = start.double().unsqueeze(1)
    if reset is None:
        lift = total.new_zeros(1, 1, 1)
    else:
        flags = reset.unsqueeze(-1)
        level = torch.where(flags, torch.maximum(level, log_f - total), level)  # the m of 0 before a reset
        # each document lies above all that is before it, so that one maximum over time serves them all
        with torch.no_grad():
            spread = level.amax() - torch.minimum(level.amin(), first.amin()) + first.amax().clamp_min(0) + 1
        lift = flags.cumsum(1) * spread
    highest = torch.cat([first, level + lift], 1).cummax(1).values[:, 1:] - lift
    top = total + highest
    before = torch.cat([first, top[:, :-1]], 1)
    if reset is not None:
        before = before.masked_fill(reset.unsqueeze(-1), 0)
    log_decay, log_write = (log_f + before - top).clamp_max(0), (log_i - top).clamp_max(0)
    return Stabilised(log_decay.to(kind), log_write.to(kind), top.to(kind))
