"""Losses whose gradients are made in the forward pass, block by block.

So the logits of a long window never exist at once, and nothing is computed twice.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from unrolled.kernels.bf16 import lowered

__all__ = ["blockwise_loss", "low_linear", "softmax_loss"]


class _SoftmaxLoss(torch.autograd.Function):
    """Sum of weighted negative log-likelihoods of a softmax; ``shift`` (V,) is taken off every logit but the
    target's."""

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        matrix: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        weight: Tensor | None,
        shift: Tensor | None,
        rows: int,
        low: bool,
        training: bool,
    ) -> tuple[Tensor, Tensor]:
        # needs_input_grad stays true under no_grad, so the caller says whether gradients are wanted
        grad = training and any(ctx.needs_input_grad[:3])
        nll = torch.empty(len(h), dtype=h.dtype, device=h.device)
        grad_h = torch.empty_like(h) if grad else None
        grad_matrix = torch.zeros_like(matrix) if grad else None
        grad_bias = torch.zeros_like(bias) if grad and bias is not None else None
        m = lowered(matrix) if low else matrix
        for start in range(0, len(h), rows):
            part = slice(start, start + rows)
            x = lowered(h[part]) if low else h[part]
            logits = (x @ m.t()).to(h.dtype)
            if bias is not None:
                logits += bias
            target = targets[part].unsqueeze(1)
            if shift is not None:
                logits -= shift
                logits.scatter_add_(1, target, shift[target])
            if grad_h is None or grad_matrix is None:
                nll[part] = (logits.logsumexp(1, keepdim=True) - logits.gather(1, target)).squeeze(1)
                continue
            # one exponential serves the loss and its gradient
            logits -= logits.amax(1, keepdim=True)
            aimed = logits.gather(1, target)
            d = logits.exp_()
            norm = d.sum(1, keepdim=True)
            nll[part] = (norm.log() - aimed).squeeze(1)
            d /= norm
            d.scatter_add_(1, target, torch.full_like(norm, -1.0))
            if weight is not None:
                d *= weight[part].unsqueeze(1)
            if grad_bias is not None:
                grad_bias += d.sum(0)
            d = lowered(d) if low else d
            grad_h[part] = (d @ m).to(h.dtype)
            if low:
                grad_matrix += (d.t() @ x).to(h.dtype)
            else:
                grad_matrix.addmm_(d.t(), x)
        ctx.save_for_backward(grad_h, grad_matrix, grad_bias)
        ctx.mark_non_differentiable(nll)
        return (nll if weight is None else nll * weight).sum(), nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Any:
        parts = [None if g is None else g * grad for g in ctx.saved_tensors]
        return (*parts, *[None] * 6)


def softmax_loss(
    h: Tensor,
    matrix: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    weight: Tensor | None = None,
    shift: Tensor | None = None,
    block: int = 2**22,
    low: bool = False,
) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood under softmax(matrix h + bias).

    Args:
        h: (n, E). matrix: (V, E). bias: (V,). targets: (n,). weight: (n,) multiplies each row's loss.
        shift: (V,) taken off every logit but the target's. block: logits held at once. low: products in bf16.
    Returns:
        the weighted sum (differentiable) and the nats of every row (not differentiable).
    """
    rows = max(1, block // max(1, len(matrix)))
    return _SoftmaxLoss.apply(h, matrix, bias, targets, weight, shift, rows, low, torch.is_grad_enabled())  # type: ignore


Loss = Callable[[Sequence[Tensor], Tensor, Sequence[Tensor]], Tensor]
"""(row-wise inputs, targets (n,), parameters) -> the nats of each row (n,), written plainly under autograd."""


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        loss: Loss,
        rows: int,
        training: bool,
        count: int,
        targets: Tensor,
        weight: Tensor | None,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        inputs, parameters = tensors[:count], [p.detach() for p in tensors[count:]]
        wanted = [training and need for need in ctx.needs_input_grad[6:]]
        grads = [torch.zeros_like(t) if need else None for t, need in zip(tensors, wanted, strict=True)]
        nll = torch.empty(len(targets), dtype=inputs[0].dtype, device=targets.device)
        for p, need in zip(parameters, wanted[count:], strict=True):
            p.requires_grad_(need)
        for start in range(0, len(targets), rows):
            part = slice(start, start + rows)
            leaves = [t[part].detach().requires_grad_(need) for t, need in zip(inputs, wanted, strict=False)]
            with torch.set_grad_enabled(any(wanted)):
                value = loss(leaves, targets[part], parameters)
                nll[part] = value.detach()
                total = (value if weight is None else value * weight[part]).sum()
            sources = [(i, t) for i, (t, need) in enumerate(zip([*leaves, *parameters], wanted, strict=True)) if need]
            if not sources:
                continue
            found = torch.autograd.grad(total, [t for _, t in sources], allow_unused=True)
            for (i, _), grad in zip(sources, found, strict=True):
                kept = grads[i]
                if grad is not None and kept is not None:
                    (kept[part] if i < count else kept).add_(grad)
        ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(nll)
        return (nll if weight is None else nll * weight).sum(), nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Any:
        return (*[None] * 6, *[None if g is None else g * grad for g in ctx.saved_tensors])


def blockwise_loss(
    loss: Loss,
    inputs: Sequence[Tensor],
    targets: Tensor,
    parameters: Sequence[Tensor],
    weight: Tensor | None,
    rows: int,
) -> tuple[Tensor, Tensor]:
    """Any loss over rows that do not mix, ``rows`` of them at a time.

    Args:
        loss: see :data:`Loss`. inputs: each (n, ...). targets: (n,). parameters: whatever else has a gradient.
        weight: (n,) multiplies each row's loss.
    Returns:
        the weighted sum (differentiable) and the nats of every row (not differentiable).
    """
    options = (loss, max(1, rows), torch.is_grad_enabled(), len(inputs))
    return _Blockwise.apply(*options, targets, weight, *inputs, *parameters)  # type: ignore[return-value]


def low_linear(x: Tensor, matrix: Tensor, bias: Tensor | None, low: bool) -> Tensor:
    """matrix x + bias, the product in bf16 where ``low``."""
    y = linear(lowered(x), lowered(matrix)).to(x.dtype) if low else linear(x, matrix)
    return y if bias is None else y + bias
