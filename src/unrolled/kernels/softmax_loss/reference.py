"""Losses of a softmax and their gradients by torch, for one block of rows after another."""

import torch
from torch import Tensor

from unrolled.kernels.bf16 import lowered

__all__ = ["TorchBlocks"]


class TorchBlocks:
    """Sums the gradients of matrix and bias over blocks of rows.

    Args:
        matrix: (V, E). bias: (V,). shift: (V,) taken off every logit but the target's. grad: whether gradients are
            wanted. low: products in bf16.
    """

    def __init__(self, matrix: Tensor, bias: Tensor | None, shift: Tensor | None, grad: bool, low: bool):
        self.grad = grad
        self.grad_matrix = torch.zeros_like(matrix) if grad else None
        self.grad_bias = torch.zeros_like(bias) if grad and bias is not None else None
        self._matrix = lowered(matrix) if low else matrix
        self._bias, self._shift, self._low, self._dtype = bias, shift, low, matrix.dtype
        self._block: tuple[Tensor, Tensor, Tensor] | None = None

    def most_rows(self, rows: int, components: int) -> int:
        """Rows of a block, where ``rows`` are allowed; each has so many components."""
        return rows

    def losses(self, x: Tensor, targets: Tensor) -> Tensor:
        """The nats of each row. x: (rows, E). targets: (rows,)."""
        x, target = lowered(x) if self._low else x, targets.unsqueeze(1)
        logits = (x @ self._matrix.t()).to(self._dtype)
        if self._bias is not None:
            logits += self._bias
        if self._shift is not None:
            logits -= self._shift
            logits.scatter_add_(1, target, self._shift[target])
        if not self.grad:
            return (logits.logsumexp(1, keepdim=True) - logits.gather(1, target)).squeeze(1)
        # one exponential serves the loss and its gradient
        logits -= logits.amax(1, keepdim=True)
        aimed = logits.gather(1, target)
        d = logits.exp_()
        norm = d.sum(1, keepdim=True)
        self._block = x, target, d.div_(norm)
        return (norm.log() - aimed).squeeze(1)

    def gradients(self, weight: Tensor) -> Tensor:
        """The gradients (rows, E) of the rows last given to :meth:`losses`, each loss times its weight (rows,)."""
        assert self._block is not None
        assert self.grad_matrix is not None
        x, target, d = self._block
        self._block = None
        d.scatter_add_(1, target, torch.full_like(target, -1.0, dtype=d.dtype))
        d *= weight.unsqueeze(1)
        if self.grad_bias is not None:
            self.grad_bias += d.sum(0)
        d = lowered(d) if self._low else d
        if self._low:
            self.grad_matrix += (d.t() @ x).to(self._dtype)
        else:
            self.grad_matrix.addmm_(d.t(), x)
        return (d @ self._matrix).to(self._dtype)
