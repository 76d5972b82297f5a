"""Complex decay of a matrix state: the real operation in a frame that turns with the phase."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["reference", "rotated"]


def reference(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, phase: Tensor, state: Tensor, reset: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """The plain loop: S <- e^(g + i phi) S + k v^T, o = Re(S^T q); S (batch, heads, K, V) complex, and the others with
    (batch, time, heads, K or 1) for g and phi."""
    resets = [None] * q.shape[1] if reset is None else reset.unbind(1)
    factor = torch.polar(log_decay.exp(), phase).unbind(1)
    s, outputs = state, []
    for q_t, k_t, v_t, a_t, reset_t in zip(q.unbind(1), k.unbind(1), v.unbind(1), factor, resets, strict=True):
        if reset_t is not None:
            s = s.masked_fill(reset_t.view(-1, 1, 1, 1), 0)
        s = a_t.unsqueeze(-1) * s + k_t.unsqueeze(-1) * v_t.unsqueeze(-2)
        outputs.append(scale * (s.real.mT @ q_t.unsqueeze(-1)).squeeze(-1))
    return torch.stack(outputs, 1), s


def rotated(scan: Any, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, phase: Tensor, state: Tensor) -> Any:
    """What :func:`reference` computes, by ``scan(q, k, v, log_decay, state)``, the real operation with 2K keys.

    R = e^(-i Phi) S, with Phi the sum of the phases since the window's start, only decays; e^(-i Phi) k v^T is written
    into it, and it is read with e^(i Phi) q. Its real and imaginary parts are halves of a real state. The window ends
    by turning R back, so that Phi never grows beyond a window.
    """
    angle = phase.cumsum(1).expand(q.shape)
    cos, sin = angle.cos(), angle.sin()
    both = torch.cat([state.real, state.imag], -2)
    if log_decay.shape[-1] != 1:
        log_decay = torch.cat([log_decay, log_decay], -1)
    o, last = scan(torch.cat([cos * q, -sin * q], -1), torch.cat([cos * k, -sin * k], -1), v, log_decay, both)
    real, imag = last.chunk(2, -2)
    turn = torch.polar(torch.ones_like(angle[:, -1]), angle[:, -1]).unsqueeze(-1)
    return o, turn * torch.complex(real, imag)
