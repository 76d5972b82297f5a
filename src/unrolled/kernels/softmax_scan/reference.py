"""The plain loop that defines the operation."""

import torch
from torch import Tensor

__all__ = ["EMPTY", "scan"]

EMPTY = -1e30
"""m where nothing was seen yet: finite, so that nothing becomes NaN, and below every score."""


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
    """y (batch, time, width) and the last m, u, w; see :func:`unrolled.kernels.softmax_scan.softmax_scan`. All of one
    type; s, v (batch, time, width), m, u, w (batch, width)."""
    decay, outputs = torch.zeros_like(s) if log_decay is None else log_decay.expand_as(s), []
    for t, (s_t, v_t, decay_t) in enumerate(zip(s.unbind(1), v.unbind(1), decay.unbind(1), strict=True)):
        if reset is not None:
            fresh = reset[:, t : t + 1]
            m, u, w = m.masked_fill(fresh, EMPTY), u.masked_fill(fresh, 0), w.masked_fill(fresh, 0)
        if bonus is not None:
            top = torch.maximum(m, bonus + s_t)
            past, now = torch.exp(m - top), torch.exp(bonus + s_t - top)
            outputs.append((past * w + now * v_t) / (past * u + now))
        top = torch.maximum(m + decay_t, s_t)
        past, now = torch.exp(m + decay_t - top), torch.exp(s_t - top)
        m, u, w = top, past * u + now, past * w + now * v_t
        if bonus is None:
            outputs.append(w / u)
    return torch.stack(outputs, 1), m, u, w
