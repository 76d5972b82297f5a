"""Losses of a softmax and their gradients by torch, for one block of rows after another."""

import torch
from torch import Tensor

from unrolled.kernels.linear.window import WindowMatrix, window_gradient

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
        self._matrix, self._lowered = matrix, WindowMatrix(matrix, True) if low else None
        self._bias, self._shift = bias, shift
        self._block: tuple[Tensor, Tensor, Tensor] | None = None

    def most_rows(self, rows: int, components: int) -> int:
        """Rows of a block, where ``rows`` are allowed; each has so many components."""
        return rows

    def losses(self, x: Tensor, targets: Tensor) -> Tensor:
        """The nats of each row. x: (rows, E). targets: (rows,)."""
        target = targets.unsqueeze(1)
        logits = x @ self._matrix.t() if self._lowered is None else self._lowered.multiply(x)
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
        if self._lowered is not None:
            window_gradient(d, x, self.grad_matrix, True)
            return self._lowered.multiply_transposed(d)
        self.grad_matrix.addmm_(d.t(), x)
        return d @ self._matrix
