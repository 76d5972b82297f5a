"""Losses whose gradients are made in the forward pass, block by block.

So the logits of a long window never exist at once, and nothing is computed twice.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["blockwise_loss"]


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
