"""Independent bits: the head of piano rolls."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from unrolled.core.errors import UsageError
from unrolled.model.frames.base import FrameHead, FrameHeadConfig, Scale, uniform

__all__ = ["BernoulliConfig", "BernoulliHead", "bit_nats"]


class BernoulliConfig(FrameHeadConfig):
    """Options of the head of independent bits: none."""

    name: Literal["bernoulli"] = "bernoulli"


def bit_nats(z: Tensor, y: Tensor) -> Tensor:
    """-log Bernoulli(y; sigmoid(z)), summed over the last axis."""
    return binary_cross_entropy_with_logits(z, y, reduction="none").sum(-1)


class BernoulliHead(FrameHead):
    r"""Every number of a frame is 0 or 1, independent of the others given the past (as in Boulanger-Lewandowski, Bengio
    and Vincent 2012, whose RNN it is that papers compare with).

    .. math::
        -\log p(y_t) = -\sum_k y_{tk} \log \sigma(z_{tk}) + (1 - y_{tk}) \log (1 - \sigma(z_{tk})), \quad z = W h + b

    Summed over the notes and averaged over the steps, which is the published unit.

    Raises:
        UsageError: frames with real numbers.
    """

    Config = BernoulliConfig
    EXAMPLES = ((BernoulliConfig(), Scale((), (), 5)),)

    def __init__(self, in_width: int, scale: Scale, config: BernoulliConfig):
        if scale.reals:
            raise UsageError(
                f"the head bernoulli is for bits, and {scale.reals} of these channels are real numbers; set "
                "task.head.name=mixture."
            )
        super().__init__(in_width, scale, config, scale.bits)

    def nats(self, z: Tensor, y: Tensor) -> Tensor:
        """See :class:`FrameHead`."""
        return bit_nats(z, y)

    def draw(self, z: Tensor, generator: torch.Generator, bias: float = 0.0) -> Tensor:
        """See :class:`FrameHead`."""
        return (uniform(z, generator) < torch.sigmoid(z)).to(z.dtype)

    def centre(self, z: Tensor) -> Any:
        """See :class:`FrameHead`."""
        return torch.sigmoid(z)
