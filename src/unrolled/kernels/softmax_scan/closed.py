"""The scan without a loop over time: the running maximum in log2(time) passes, then two sums by ``diag_scan``.

Any number near the maximum would do to keep the sums in range: y does not depend on it. So it is a constant to the
gradients, but for the last one, which is part of the state.
"""

import torch
from torch import Tensor

from unrolled.kernels.diag_scan import diag_scan
from unrolled.kernels.softmax_scan.reference import EMPTY

__all__ = ["scan"]


@torch.no_grad()
def _running_maximum(s: Tensor, decay: Tensor, m: Tensor, reset: Tensor | None) -> Tensor:
    """m(t) = max(m(t-1) + decay(t), s(t)); a span doubles at each pass, as in ``diag_scan``."""
    first = torch.maximum(m + decay[:, 0], s[:, 0])
    if reset is not None:
        first = torch.where(reset[:, :1], s[:, 0], first)
        decay = decay.masked_fill(reset.unsqueeze(-1), -torch.inf)
    s, span = torch.cat([first.unsqueeze(1), s[:, 1:]], 1), 1
    while span < s.shape[1]:
        s = torch.cat([s[:, :span], torch.maximum(s[:, :-span] + decay[:, span:], s[:, span:])], 1)
        decay = torch.cat([decay[:, :span], decay[:, span:] + decay[:, :-span]], 1)
        span *= 2
    return s


def _last_maximum(s: Tensor, decay: Tensor, m: Tensor, running: Tensor) -> Tensor:
    """The last m as a function of what it is made of: the score that was the largest last, and what decayed since."""
    time = torch.arange(s.shape[1], device=s.device).view(1, -1, 1)
    winner = torch.where(running == s, time, -1).amax(1, keepdim=True)
    since = (decay * (time > winner)).sum(1)
    return torch.where(winner.squeeze(1) < 0, m, s.gather(1, winner.clamp_min(0)).squeeze(1)) + since


def scan(
    s: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    bonus: Tensor | None,
    m: Tensor,
    u: Tensor,
    w: Tensor,
    reset: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`unrolled.kernels.softmax_scan.reference.scan`."""
    width = s.shape[2]
    decay = torch.zeros_like(s) if log_decay is None else log_decay.expand_as(s)
    running = _running_maximum(s, decay, m, reset)
    m_before = torch.cat([m.unsqueeze(1), running[:, :-1]], 1)
    past, now = torch.exp(m_before + decay - running), torch.exp(s - running)
    sums, _ = diag_scan(past.repeat(1, 1, 2), torch.cat([now * v, now], -1), torch.cat([w, u], -1), reset)
    if bonus is None:
        y = sums[..., :width] / sums[..., width:]
    else:
        before = torch.cat([torch.cat([w, u], -1).unsqueeze(1), sums[:, :-1]], 1)
        if reset is not None:
            before, m_before = (
                before.masked_fill(reset.unsqueeze(-1), 0),
                m_before.masked_fill(reset.unsqueeze(-1), EMPTY),
            )
        top = torch.maximum(m_before, bonus + s).detach()
        past, now = torch.exp(m_before - top), torch.exp(bonus + s - top)
        y = (past * before[..., :width] + now * v) / (past * before[..., width:] + now)
    last = _last_maximum(s, decay, m, running)
    scale = torch.exp(running[:, -1] - last)  # one; through it u and w depend on the last m
    return y, last, scale * sums[:, -1, width:], scale * sums[:, -1, :width]
