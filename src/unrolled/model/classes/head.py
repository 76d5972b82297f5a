"""The head of a row: its outputs pooled, and logits of classes."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unrolled.cells.encoders.base import mask_of
from unrolled.core.config import Config
from unrolled.kernels.linear import glue_linear
from unrolled.model.heads.base import Head

__all__ = ["ClassHead", "ClassHeadConfig", "Pool", "pooled"]

Pool = Literal["mean", "max", "last"]


class ClassHeadConfig(Config):
    """Options of the head of a row."""

    pool: Pool = Field(
        default="mean", description="of the outputs of a row: their mean, their largest numbers, or the last one"
    )
    hidden: int = Field(
        default=0, ge=0, le=1 << 20, description="width of a hidden layer with tanh before the logits (0: none)"
    )
    smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of a target that is spread over all classes")


class ClassHead(Head):
    r"""Classes of whole rows.

    .. math::
        p = \mathrm{softmax}(W\,\mathrm{pool}_t\, h_t + b), \quad
        \text{with a hidden layer: } W \tanh(V\,\mathrm{pool}_t\, h_t + c) + b

    Training with ``smoothing`` s minimises (1 - s) times the nats of the label and s times their mean over all classes;
    the nats that are reported are the label's.

    Args:
        in_width: width of h. classes: how many there are.
    """

    def __init__(self, in_width: int, classes: int, config: ClassHeadConfig):
        super().__init__(in_width, classes, config)
        self.hidden = nn.Linear(in_width, config.hidden) if config.hidden else None
        self.weight = nn.Parameter(torch.empty(classes, config.hidden or in_width))
        self.bias = nn.Parameter(torch.zeros(classes))
        if not self.weight.is_meta:
            nn.init.normal_(self.weight, 0, self.weight.shape[1] ** -0.5)

    def class_logits(self, h: Tensor, reset: Tensor | None = None) -> Tensor:
        """(batch, classes). h: (batch, time, in_width), of rows as :class:`EncoderCell` takes them."""
        v = pooled(h, mask_of(reset), self.config.pool)
        if self.hidden is not None:
            v = torch.tanh(glue_linear(v, self.hidden.weight, self.hidden.bias, self.compute, "head"))
        return glue_linear(v, self.weight, self.bias, self.compute, "head")

    def loss(
        self,
        h: Tensor,
        targets: Tensor,
        weight: Tensor | None = None,
        state: Any = None,
        reset: Tensor | None = None,
        masks: Any = None,
    ) -> tuple[Tensor, Tensor, Any]:
        """See :meth:`Head.loss`, with targets, weight and nats (batch, 1)."""
        logits, smoothing = self.class_logits(h, reset), self.config.smoothing if self.training else 0.0
        nll = cross_entropy(logits, targets[:, 0], reduction="none", label_smoothing=smoothing).unsqueeze(1)
        total = nll.sum() if weight is None else (nll * weight).sum()
        if smoothing:
            nll = cross_entropy(logits, targets[:, 0], reduction="none").unsqueeze(1)
        return total, nll.detach(), state


def pooled(h: Tensor, mask: Tensor | None, pool: Pool) -> Tensor:
    """(batch, width) of h (batch, time, width), over the steps where ``mask`` (batch, time) is true."""
    if pool == "last":
        return h[:, -1]  # padding stands before a row
    if mask is None:
        return h.mean(1) if pool == "mean" else h.amax(1)
    there = mask.unsqueeze(-1)
    if pool == "mean":
        return h.masked_fill(~there, 0).sum(1) / there.sum(1)
    return h.masked_fill(~there, -torch.inf).amax(1)
