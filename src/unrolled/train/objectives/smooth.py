"""Label smoothing."""

from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.model import LanguageModel
from unrolled.model.heads.softmax import SoftmaxHead
from unrolled.train.objectives.base import Extra, ExtraConfig, Given

__all__ = ["Smooth", "SmoothConfig"]


class SmoothConfig(ExtraConfig):
    """Options of label smoothing."""

    name: Literal["smooth"] = "smooth"
    weight: float = Field(default=0.1, ge=0, le=1, description="share of the target that is spread over all tokens")


class Smooth(Extra):
    r"""Label smoothing (Szegedy et al. 2016): a share a of each target is spread evenly over the V tokens.

    .. math::
        (1 - a)\,(-\log p_y) + a\,\frac1V \sum_v (-\log p_v)
        = -\log p_y + a\,(z_y - \bar z)

    with z the logits and :math:`\bar z` their mean. The right side is what is computed: the value is the mean over the
    targets of z_y minus the mean logit. That is exact, and needs no logits: the mean logit is that of the mean row of
    the output matrix, so that a token costs two products of vectors. For the full softmax alone: other heads have no
    logits of all tokens whose mean this would be.
    """

    Config = SmoothConfig
    EXAMPLES = (SmoothConfig(), SmoothConfig(weight=0.5))

    def __init__(self, config: SmoothConfig, streams: RandomStreams, model: nn.Module):
        super().__init__(config, streams, model)
        head = model.head if isinstance(model, LanguageModel) else None
        if not isinstance(head, SoftmaxHead) or (head.config.negatives, head.config.cap) != (None, None):
            raise UsageError(
                "the objective smooth needs the head softmax without negatives and cap; leave it out of train.extra."
            )

    def value(self, given: Given) -> Tensor:
        """See :meth:`Extra.value`."""
        seen = given.seen
        head: Any = seen.model.head
        drawn = None if seen.drawn is None else seen.drawn.head
        h = head.project(seen.out.dropped, None if drawn is None else drawn.projected)
        difference = (h * head.weight[seen.targets]).sum(-1) - h @ head.weight.mean(0)
        if head.bias is not None:
            difference = difference + head.bias[seen.targets] - head.bias.mean()
        if seen.weight is not None:
            difference = difference * seen.weight
        return difference.sum() / given.divisor
