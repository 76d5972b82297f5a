"""Label smoothing."""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from unrolled.core.random import RandomStreams
from unrolled.train.objectives.base import Extra, ExtraConfig, Given
from unrolled.train.objectives.logits import check_softmax, logit_of, read

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
        check_softmax(model, "smooth")

    def value(self, given: Given) -> Tensor:
        """See :meth:`Extra.value`."""
        head, h = read(given)
        difference = logit_of(head, h, given.seen.targets) - h @ head.weight.mean(0)
        if head.bias is not None:
            difference = difference - head.bias.mean()
        if given.seen.weight is not None:
            difference = difference * given.seen.weight
        return difference.sum() / given.divisor
