"""``softmax_loss``: negative log-likelihoods of a softmax, or of a mixture of some, whose gradients are made with them.

Block by block of the rows, so that the logits of a long window never exist at once and nothing is computed twice.

Backends: ``native`` (in C++ on a CPU, once ``unrolled build`` has been run: tile by tile of the vocabulary, too) and
``reference`` (torch's operations on a block of logits).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.dispatch import Backend, Operation, Sizes, choose
from unrolled.kernels.softmax_loss import native, reference

__all__ = ["BACKENDS", "OPERATION", "softmax_loss"]

BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("native", native.refuse, native.NativeBlocks, native.pays),
        Backend("reference", lambda *_: None, reference.TorchBlocks),
    )
}


class _SoftmaxLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        matrix: Tensor,
        bias: Tensor | None,
        log_prior: Tensor | None,
        targets: Tensor,
        weight: Tensor | None,
        blocks: Any,
        rows: int,
        floor: float,
    ) -> tuple[Tensor, Tensor]:
        count = h.shape[1]
        nll = h.new_empty(len(h))
        grad_h = torch.empty_like(h) if blocks.grad else None
        grad_prior = torch.empty_like(log_prior) if blocks.grad and log_prior is not None else None
        for start in range(0, len(h), rows):
            part = slice(start, start + rows)
            aims = targets[part].repeat_interleave(count) if count > 1 else targets[part]
            each = blocks.losses(h[part].flatten(0, 1), aims).view(-1, count)
            if log_prior is None:
                nll[part], share = each.squeeze(1), torch.ones_like(each)
            else:
                nll[part], share = _mix(log_prior[part], each, floor)
            if grad_h is None:
                continue
            # the gradient of a row's loss with respect to a component's loss is that component's share in the token
            share = share if weight is None else share * weight[part].unsqueeze(1)
            found = blocks.gradients(share.flatten()).view_as(grad_h[part])
            if len(found) == len(h):
                grad_h = found
            else:
                grad_h[part] = found
            if grad_prior is not None:
                grad_prior[part] = -share
        ctx.save_for_backward(grad_h, blocks.grad_matrix, blocks.grad_bias, grad_prior)
        ctx.mark_non_differentiable(nll)
        return (nll if weight is None else nll * weight).sum(), nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Any:
        parts = [None if g is None else g * grad for g in ctx.saved_tensors]
        return (*parts, *[None] * 5)


def _mix(log_prior: Tensor, each: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """The mixture's loss (rows,) and the components' shares in it (rows, K), from their losses (rows, K)."""
    joint = log_prior - each
    log_p = joint.logsumexp(1)
    share = (joint - log_p.unsqueeze(1)).exp_()
    if not floor:
        return -log_p, share
    p = log_p.exp()
    return -(p + floor).log(), share * (p / (p + floor)).unsqueeze(1)


def softmax_loss(
    h: Tensor,
    matrix: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    weight: Tensor | None = None,
    shift: Tensor | None = None,
    log_prior: Tensor | None = None,
    floor: float = 0.0,
    block: int = 2**22,
    low: bool = False,
    backend: str = "auto",
    subject: str = "softmax",
) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood under softmax(matrix h + bias), or under a mixture of them.

    Args:
        h: (n, E); for a mixture (n, K, E). matrix: (V, E). bias: (V,). targets: (n,).
        weight: (n,) multiplies each row's loss.
        shift: (V,) taken off every logit but the target's (sampled softmax). It, bias and weight are taken in h's type.
        log_prior: (n, K) log of the components' weights. floor: added to the probability of a mixture.
        block: logits held at once. low: products in bf16.
        backend: ``auto`` or a backend. subject: who asks, for the record of choices.
    Returns:
        the weighted sum (differentiable) and the nats of every row (not differentiable).
    Raises:
        UsageError: an unknown backend, or one that cannot serve here.
    """
    h = h.unsqueeze(1) if h.dim() == 2 else h
    targets = targets.to(torch.int64).contiguous()
    bias, shift, weight = (None if t is None else t.to(h.dtype).contiguous() for t in (bias, shift, weight))
    given = (h, matrix, bias, log_prior)
    grad = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given)
    chosen = choose("softmax_loss", BACKENDS, backend, subject, h, matrix, low)
    blocks = chosen.run(matrix.detach(), None if bias is None else bias.detach(), shift, grad, low)
    rows = max(1, block // max(1, len(matrix) * h.shape[1]))
    return _SoftmaxLoss.apply(*given, targets, weight, blocks, blocks.most_rows(rows, h.shape[1]), floor)  # type: ignore


_VOCABULARY = 8  # ids for each number of the width, where it is measured


def _amount(sizes: Sizes, backward: bool) -> int:
    """Two operations a weight and row; gradients of rows and matrix, which are made in any case, one more each."""
    return (3 if backward else 1) * 2 * _VOCABULARY * sizes.width**2 * sizes.batch * sizes.window


def _inputs(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    rows, ids = sizes.batch * sizes.window, _VOCABULARY * sizes.width
    matrix = draw("matrix", ids, sizes.width) * sizes.width**-0.5
    targets = (draw("targets", rows).abs() * ids).long() % ids
    return {"h": draw("h", rows, sizes.width), "matrix": matrix, "bias": draw("bias", ids), "targets": targets}


def _call(given: Mapping[str, Tensor], backend: str, precision: str) -> tuple[Tensor, ...]:
    h, matrix, bias, targets = (given[name] for name in ("h", "matrix", "bias", "targets"))
    return softmax_loss(h, matrix, bias, targets, low=precision == "bf16", backend=backend)


OPERATION = Operation(
    "softmax_loss", "-log softmax(W h + b) of each row's target, with its gradients", BACKENDS, "products",
    amount=_amount, inputs=_inputs, call=_call, precisions=("float32", "bf16"),
)  # fmt: skip
