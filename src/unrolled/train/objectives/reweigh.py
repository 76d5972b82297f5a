"""Losses that are a function of each token's own nats."""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.train.objectives.base import Extra, ExtraConfig, Given

__all__ = ["Reweigh", "ReweighConfig"]


class ReweighConfig(ExtraConfig):
    """Options of the reweighing."""

    name: Literal["reweigh"] = "reweigh"
    kind: Literal["tldr", "focal"] = Field(
        default="tldr", description="w(p) = 1 + cos(pi p), which makes what is likely count little; or (1 - p)^2"
    )


class Reweigh(Extra):
    r"""Puts w(p) n in the place of each target's nats n = -log p, where p is not held fixed.

    TLDR (Jiang, Wolf, Monz and de Rijke 2020, their published code): w = 1 + cos(pi p). Focal loss (Lin et al. 2017):
    w = (1 - p)^2. The value is the difference from the cross-entropy, mean of w(p) n - n, so that at weight 1 it takes
    the cross-entropy's place. With f(n) = w(e^-n) n, the gradient of f is f'(n) times that of n:

    .. math::
        f'(n) &= 1 + \cos(\pi p) + n \pi p \sin(\pi p) \quad (tldr), \\
        f'(n) &= (1 - p)^2 + 2 n p (1 - p) \quad (focal).

    Hence the head makes its loss once more with the weights f'(n) - 1: exact and block by block for every head.
    """

    Config = ReweighConfig
    EXAMPLES = (ReweighConfig(), ReweighConfig(kind="focal", weight=0.5))

    def value(self, given: Given) -> Tensor:
        """See :meth:`Extra.value`. Raises UsageError for a task that cannot weigh its targets anew."""
        seen = given.seen
        if seen.again is None:
            raise UsageError("the objective reweigh needs a task that weighs its targets; leave it out of train.extra.")
        f, slope = reweighed(seen.nll, self.config.kind)
        weight = torch.ones_like(f) if seen.weight is None else seen.weight.to(f.dtype)
        difference = (weight * (f - seen.nll)).sum()
        loss = seen.again(weight * (slope - 1))
        # the value is that of f, the gradient that of the weighted loss
        return (loss + (difference - loss.detach())) / given.divisor


def reweighed(nats: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """f(n) = w(p) n and f'(n), elementwise."""
    p = (-nats).exp()
    if kind == "focal":
        return (1 - p).square() * nats, (1 - p).square() + 2 * nats * p * (1 - p)
    w = 1 + (math.pi * p).cos()
    return w * nats, w + nats * math.pi * p * (math.pi * p).sin()
