"""Real numbers by their squared error: the head of pictures and other signals."""

import math
from typing import Literal

import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.model.frames.base import FrameHead, FrameHeadConfig, Scale

__all__ = ["ValuesConfig", "ValuesHead"]


class ValuesConfig(FrameHeadConfig):
    """Options of the head of values: none."""

    name: Literal["values"] = "values"


class ValuesHead(FrameHead):
    r"""Every number of a frame is normal around its own prediction, with deviation 1 after scaling, so that the nats
    are half the squared error and a constant (least squares).

    .. math::
        -\log p(y_t) = \tfrac{1}{2} |y_t - \mu_t|^2 + \tfrac{K}{2} \log 2\pi, \quad \mu = W h + b

    A bias b >= 0 draws with deviation exp(-b).

    Raises:
        UsageError: frames with bits.
    """

    Config = ValuesConfig
    EXAMPLES = ((ValuesConfig(), Scale((0.5, -1.0, 2.0), (2.0, 0.5, 1.0), 0)),)
    biased = True

    def __init__(self, in_width: int, scale: Scale, config: ValuesConfig):
        if scale.bits:
            raise UsageError(
                f"the head values is for real numbers, and {scale.bits} of these channels are bits; set "
                "task.head.name=bernoulli, or mixture."
            )
        super().__init__(in_width, scale, config, scale.reals)

    def nats(self, z: Tensor, y: Tensor) -> Tensor:
        """See :class:`FrameHead`."""
        return 0.5 * (y - z).square().sum(-1) + 0.5 * y.shape[-1] * math.log(2 * math.pi)

    def draw(self, z: Tensor, generator: torch.Generator, bias: float = 0.0) -> Tensor:
        """See :class:`FrameHead`."""
        noise = torch.randn(z.shape, generator=generator, dtype=torch.float64).to(z.device, z.dtype)
        return z + math.exp(-bias) * noise

    def centre(self, z: Tensor) -> Tensor:
        """See :class:`FrameHead`."""
        return z
