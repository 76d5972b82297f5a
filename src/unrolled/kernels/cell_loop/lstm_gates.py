"""The pointwise part of an LSTM step: plain, and fused with its backward written by hand.

Under autograd the dozen small operations of the plain form cost as much as the matrix products at widths below
about 500; the fused form is one node, works in place on the pre-activations, and gives the same numbers.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["lstm_gates", "lstm_gates_fused"]


def lstm_gates(gates: Tensor, c: Tensor, coupled: bool = False, cap: bool = False) -> dict[str, Tensor]:
    """Gates and new cell state.

    Args:
        gates: pre-activations (batch, 4N) in the order i, f, g, o; (batch, 3N) as f, g, o where coupled.
        c: (batch, N) cell state before the step.
        coupled: the input gate is 1 - f. cap: the input gate is min(1 - f, i).
    Returns:
        i, f, g, o after their nonlinearities, and the new c.
    """
    if coupled:
        f, g, o = gates.chunk(3, -1)
        f = torch.sigmoid(f)
        i = 1 - f
    else:
        i, f, g, o = gates.chunk(4, -1)
        i, f = torch.sigmoid(i), torch.sigmoid(f)
        if cap:
            i = torch.minimum(1 - f, i)
    g, o = torch.tanh(g), torch.sigmoid(o)
    return {"i": i, "f": f, "g": g, "o": o, "c": f * c + i * g}


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, c: Tensor, coupled: bool, cap: bool) -> tuple[Tensor, Tensor]:
        n = c.shape[-1]
        active = gates.detach()
        active[:, : -2 * n].sigmoid_()
        active[:, -2 * n : -n].tanh_()
        active[:, -n:].sigmoid_()
        f, g, o = active[:, -3 * n : -2 * n], active[:, -2 * n : -n], active[:, -n:]
        if coupled:
            new, i = torch.lerp(g, c, f), None
        else:
            i = active[:, :n]
            i = torch.minimum(1 - f, i) if cap else i
            new = (f * c).addcmul_(i, g)
        squashed = torch.tanh(new)
        ctx.save_for_backward(active, c, squashed)
        ctx.coupled, ctx.cap = coupled, cap
        return o * squashed, new

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor, grad_c: Tensor) -> Any:
        active, c, squashed = ctx.saved_tensors
        n = c.shape[-1]
        f, g, o = active[:, -3 * n : -2 * n], active[:, -2 * n : -n], active[:, -n:]
        slope = active * (1 - active)  # of the sigmoids; the candidate's is put right below
        grad = torch.empty_like(active)
        torch.mul(grad_h * squashed, slope[:, -n:], out=grad[:, -n:])
        # d tanh(c) = 1 - tanh(c)^2
        dc = grad_c + (grad_h * o).mul_(1 - squashed * squashed)
        slope_g = 1 - g * g
        grad_f, grad_g = grad[:, -3 * n : -2 * n], grad[:, -2 * n : -n]
        if ctx.coupled:
            torch.mul(dc * (c - g), slope[:, :n], out=grad_f)
            torch.mul(dc * (1 - f), slope_g, out=grad_g)
        else:
            i = active[:, :n]
            di = dc * g
            df = dc * c
            if ctx.cap:
                rest = 1 - f
                # torch.minimum splits the gradient of a tie between both sides
                share = (i < rest).to(di.dtype).add_((i == rest).to(di.dtype), alpha=0.5)
                df = df - di * (1 - share)
                torch.mul(dc * torch.minimum(rest, i), slope_g, out=grad_g)
                di = di * share
            else:
                torch.mul(dc * i, slope_g, out=grad_g)
            torch.mul(di, slope[:, :n], out=grad[:, :n])
            torch.mul(df, slope[:, n : 2 * n], out=grad_f)
        return grad, dc.mul_(f), None, None


def lstm_gates_fused(gates: Tensor, c: Tensor, coupled: bool = False, cap: bool = False) -> tuple[Tensor, Tensor]:
    """h = o tanh(c) and c of :func:`lstm_gates`, as one operation.

    ``gates`` is overwritten: it must be a tensor that nobody else needs, as ``w.linear(..., add)`` returns.
    """
    return _Fused.apply(gates, c, coupled, cap)  # type: ignore[return-value]
