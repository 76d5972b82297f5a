"""The softmax head, its loss and gradients made block by block."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from unrolled.cells.init import truncated_normal
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.model.dropout import apply_mask, draw_mask
from unrolled.model.heads.base import Head, HeadConfig

__all__ = ["SoftmaxConfig", "SoftmaxHead"]


class SoftmaxConfig(HeadConfig):
    """Options of the softmax head."""

    name: Literal["softmax"] = "softmax"
    project: int | None = Field(
        default=None,
        ge=1,
        description="width of a linear map without bias before the output matrix (absent: none, or the "
        "embedding size where the matrix is tied and the widths differ)",
    )
    bias: bool = Field(default=True, description="a bias per token")
    bias_init: Literal["zero", "unigram"] = Field(
        default="zero", description="start the bias at zero, or at the log frequency of each token in the training text"
    )
    negatives: int | None = Field(
        default=None,
        ge=1,
        description="sampled softmax in training (Jean et al. 2015): tokens drawn per window from the less frequent "
        "ones (absent, or no fewer than there are: the full softmax); evaluation always uses the full softmax",
    )
    frequent: int = Field(
        default=1000, ge=0, description="most frequent tokens that every sampled softmax contains besides its targets"
    )
    block: int = Field(default=2**22, ge=1, description="logits held at once in training (rows x vocabulary)")


class SoftmaxMasks(NamedTuple):
    """What the head draws for a training window. projected: dropout mask (batch, 1 or time, E) on the projected
    output. negatives: (n,) ids drawn for the sampled softmax."""

    projected: Tensor | None
    negatives: Tensor | None


class _BlockLoss(torch.autograd.Function):
    """Sum of weighted negative log-likelihoods. Gradients are made in the forward pass, block by block, so that
    the logits of a long window never exist at once and nothing is computed twice.

    ``shift`` (V,) is taken off every logit but the target's."""

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
        m = matrix.bfloat16() if low else matrix
        for start in range(0, len(h), rows):
            part = slice(start, start + rows)
            x = h[part].bfloat16() if low else h[part]
            logits = (x @ m.t()).to(h.dtype)
            if bias is not None:
                logits += bias
            target = targets[part].unsqueeze(1)
            if shift is not None:
                logits -= shift
                logits.scatter_add_(1, target, shift[target])
            norm = logits.logsumexp(1, keepdim=True)
            nll[part] = (norm - logits.gather(1, target)).squeeze(1)
            if grad_h is None or grad_matrix is None:
                continue
            d = logits.sub_(norm).exp_()
            d.scatter_add_(1, target, torch.full_like(norm, -1.0))
            if weight is not None:
                d *= weight[part].unsqueeze(1)
            if grad_bias is not None:
                grad_bias += d.sum(0)
            d = d.bfloat16() if low else d
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


class SoftmaxHead(Head):
    """log p = log softmax(W P h + b), with the projection P where one is set or needed.

    Args:
        in_width: width of h. vocab_size: V. tied: the embedding matrix (V, E) to share, or None.
    """

    Config = SoftmaxConfig

    def __init__(self, in_width: int, vocab_size: int, config: SoftmaxConfig, tied: nn.Parameter | None = None):
        super().__init__(in_width, vocab_size, config, tied)
        size = tied.shape[1] if tied is not None else (config.project or in_width)
        if config.project not in (None, size):
            raise UsageError(
                f"the output matrix is tied to an embedding of size {size}, so head.project cannot be "
                f"{config.project}; leave it out or untie."
            )
        self.projection = nn.Parameter(torch.empty(size, in_width)) if config.project or size != in_width else None
        self.projected_width = None if self.projection is None else size
        self.weight = tied if tied is not None else nn.Parameter(torch.empty(vocab_size, size))
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if config.bias else None
        self._frequent: Tensor | None = None
        self._rest: Tensor | None = None
        self._unigram = torch.empty(0)
        self.reset_parameters(tied is None)

    def reset_parameters(self, own_matrix: bool = True) -> None:
        """Draw anew: projection orthogonal, matrix truncated normal with variance 1/fan_in, bias zero."""
        if self.weight.is_meta:
            return
        if self.projection is not None:
            nn.init.orthogonal_(self.projection)
        if own_matrix:
            truncated_normal(self.weight, self.weight.shape[1] ** -0.5)

    @property
    def needs_counts(self) -> bool:
        """See :attr:`Head.needs_counts`."""
        return self.config.negatives is not None or (self.bias is not None and self.config.bias_init == "unigram")

    @torch.no_grad()
    def use_counts(self, counts: Tensor) -> None:
        """Set the bias to log((count + 1) / sum) where it starts so, and rank the tokens for sampling."""
        p = (counts + 1).double()
        p = p / p.sum()
        if self.bias is not None and self.config.bias_init == "unigram":
            self.bias.copy_(p.log())
        if self.config.negatives is not None:
            order = counts.argsort(descending=True, stable=True)
            self._frequent, self._rest = order[: self.config.frequent], order[self.config.frequent :]
            self._unigram = p.to(self.weight.dtype)

    def draw_masks(
        self, batch: int, time: int, rate: float, per_step: bool, streams: RandomStreams, window: int
    ) -> SoftmaxMasks | None:
        """See :meth:`Head.draw_masks`."""
        projected = negatives = None
        if self.projected_width:
            shape = (batch, time if per_step else 1, self.projected_width)
            place = self.weight.device, self.weight.dtype
            projected = draw_mask(rate, shape, streams, "projected", window, *place)
        if self.config.negatives is not None and self.config.negatives < len(self._ranked()[1]):
            generator = streams.generator("negatives", window)
            rest = self._ranked()[1]
            negatives = rest[torch.randperm(len(rest), generator=generator)[: self.config.negatives]]
        return None if projected is None and negatives is None else SoftmaxMasks(projected, negatives)

    def _ranked(self) -> tuple[Tensor, Tensor]:
        if self._frequent is None or self._rest is None:
            raise UsageError("the sampled softmax needs token counts; call head.use_counts(counts) before training.")
        return self._frequent, self._rest

    def _candidates(self, targets: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Ids of this window's softmax (n,), the targets as positions in them, and the log of each id's probability
        of being among them: 0 for the frequent ones, else 1 - (1 - k/r)(1 - p)^tokens for k drawn of r."""
        frequent, rest = self._ranked()
        included = torch.zeros(self.vocab_size, dtype=torch.bool)
        for ids in (frequent, negatives, targets.cpu()):
            included[ids] = True
        ids = included.nonzero().squeeze(1)
        missed = (1 - len(negatives) / len(rest)) * (1 - self._unigram).pow(len(targets))
        log_chance = (1 - missed).log()
        log_chance[frequent] = 0
        places = included.cumsum(0) - 1
        device = targets.device
        return ids.to(device), places[targets.cpu()].to(device), log_chance[ids].to(device)

    def _project(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        h = h if self.projection is None else linear(h, self.projection)
        return apply_mask(h, mask)

    def loss(
        self,
        h: Tensor,
        targets: Tensor,
        weight: Tensor | None = None,
        state: None = None,
        reset: Tensor | None = None,
        masks: SoftmaxMasks | None = None,
    ) -> tuple[Tensor, Tensor, None]:
        """See :meth:`Head.loss`; with drawn negatives the sum and the nats are those of the sampled softmax, an
        estimate of the full one."""
        h = self._project(h, None if masks is None else masks.projected)
        flat, matrix, bias, shift = targets.flatten(), self.weight, self.bias, None
        if masks is not None and masks.negatives is not None:
            ids, flat, shift = self._candidates(flat, masks.negatives)
            matrix, bias = matrix[ids], None if bias is None else bias[ids]
        rows = max(1, self.config.block // len(matrix))
        each = None if weight is None else weight.flatten().to(h.dtype)
        total, nll = _BlockLoss.apply(  # type: ignore[misc]
            h.flatten(0, 1),
            matrix,
            bias,
            flat,
            each,
            shift,
            rows,
            self.compute.precision == "bf16",
            torch.is_grad_enabled(),
        )
        return total, nll.view_as(targets), None

    def log_prob(self, h: Tensor, state: None = None) -> tuple[Tensor, None]:
        """See :meth:`Head.log_prob`."""
        h, weight = self._project(h), self.weight
        if self.compute.precision == "bf16":
            logits = linear(h.bfloat16(), weight.bfloat16()).to(h.dtype)
        else:
            logits = linear(h, weight)
        return torch.log_softmax(logits if self.bias is None else logits + self.bias, -1), None
