"""What a level does with its pre-activations, and its gradients: by torch's operations, or in C++."""

from typing import Any

import torch
from torch import Tensor

from unrolled.kernels.cpu import library

__all__ = ["Native", "Torch"]

_sigmoid_back: Any = torch.ops.aten.sigmoid_backward.grad_input
_tanh_back: Any = torch.ops.aten.tanh_backward.grad_input
# A thread has at least so many rows.
_ROWS_PER_THREAD = 64


class Torch:
    """By torch's operations, on any device; of both units.

    Args:
        like: (time, batch, width), for memory.
    """

    def __init__(self, like: Tensor):
        self.like = like
        self.work: tuple[Tensor, Tensor] | None = None

    def forward(
        self, injected: Tensor, ready: bool, before: Tensor | None, gates: Tensor, cell: Tensor | None, out: Tensor
    ) -> None:
        """Leaves gates, c and h in ``gates``, ``cell`` and ``out``.

        Args:
            injected, gates: (time, batch, gates); ``gates`` holds the products, if they are ``ready``.
            before: c(t-d); None is zero. cell: None for tanh, whose gates are pre-activations then.
        """
        if ready:
            gates += injected
        else:
            gates.copy_(injected)
        if cell is None:
            torch.tanh(gates, out=out)
            return
        width = cell.shape[-1]
        gates[..., : 2 * width].sigmoid_()
        gates[..., 2 * width : 3 * width].tanh_()
        gates[..., 3 * width :].sigmoid_()
        i, o, g, f = gates.chunk(4, -1)
        torch.mul(i, g, out=cell)
        if before is not None:
            cell.addcmul_(f, before)
        torch.tanh(cell, out=out)
        out *= o

    def backward(
        self,
        gates: Tensor,
        cell: Tensor | None,
        out: Tensor,
        before: Tensor | None,
        d_out: Tensor,
        d_cell: Tensor | None,
        first: bool,
        d_pre: Tensor,
        total: Tensor,
        d_before: Tensor | None,
    ) -> None:
        """Leaves the gradients of the pre-activations in ``d_pre``, and that of c(t-d) in ``d_before``.

        Args:
            d_out, d_cell: of h and of c but for what comes by h. first: ``total`` is made of d_pre, not added to.
        """
        if cell is None or d_cell is None or d_before is None:
            _tanh_back(d_out, out, grad_input=d_pre)
        else:
            i, o, g, f = gates.chunk(4, -1)
            d_i, d_o, d_g, d_f = d_pre.chunk(4, -1)
            self.work = self.work or (torch.empty_like(self.like), torch.empty_like(self.like))
            t, part = self.work
            torch.tanh(cell, out=t)
            _sigmoid_back(torch.mul(d_out, t, out=part), o, grad_input=d_o)
            torch.mul(d_out, o, out=part)
            dc = _tanh_back(part, t, grad_input=part).add_(d_cell)
            _sigmoid_back(torch.mul(dc, g, out=t), i, grad_input=d_i)
            _tanh_back(torch.mul(dc, i, out=t), g, grad_input=d_g)
            if before is None:
                d_f.zero_()
            else:
                _sigmoid_back(torch.mul(dc, before, out=t), f, grad_input=d_f)
            torch.mul(dc, f, out=d_before)
        if first:
            total.copy_(d_pre)
        else:
            total += d_pre


class Native:
    """The same in C++, in one pass forward and one back; of the LSTM's unit on a CPU. All tensors lie in order."""

    def __init__(self, like: Tensor):
        self.dtype, self.rows, self.width = like.dtype, like.shape[0] * like.shape[1], like.shape[2]
        self.threads = max(1, min(torch.get_num_threads(), self.rows // _ROWS_PER_THREAD))

    def forward(
        self, injected: Tensor, ready: bool, before: Tensor | None, gates: Tensor, cell: Tensor | None, out: Tensor
    ) -> None:
        """See :meth:`Torch.forward`."""
        given = (injected, int(ready), before, gates, cell, out)
        library().call("levels_forward", self.dtype, self.rows, self.width, *given, self.threads)

    def backward(
        self,
        gates: Tensor,
        cell: Tensor | None,
        out: Tensor,
        before: Tensor | None,
        d_out: Tensor,
        d_cell: Tensor | None,
        first: bool,
        d_pre: Tensor,
        total: Tensor,
        d_before: Tensor | None,
    ) -> None:
        """See :meth:`Torch.backward`."""
        given = (gates, cell, before, d_out, d_cell, int(first), d_pre, total, d_before)
        library().call("levels_backward", self.dtype, self.rows, self.width, *given, self.threads)
