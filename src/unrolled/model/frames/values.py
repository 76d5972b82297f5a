"""Real numbers by their squared error: the head of pictures and other signals."""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.model.frames.base import FrameHead, FrameHeadConfig, Scale

__all__ = ["ValuesConfig", "ValuesHead"]


class ValuesConfig(FrameHeadConfig):
    """Options of the head of values."""

    name: Literal["values"] = "values"
    maps: int = Field(
        default=0,
        ge=0,
        le=1 << 16,
        description="the outputs are so many maps over the points of a frame, and each point is predicted from its own "
        "by the same weights, a 1 x 1 convolution (0: every number from all outputs)",
    )


class ValuesHead(FrameHead):
    r"""Every number of a frame is normal around its own prediction, with deviation 1 after scaling, so that the nats
    are half the squared error and a constant (least squares).

    .. math::
        -\log p(y_t) = \tfrac{1}{2} |y_t - \mu_t|^2 + \tfrac{K}{2} \log 2\pi, \quad \mu = W h + b

    With ``maps`` the outputs are maps one after another, over as many points as a frame has, or as each of its channels
    has, which stand one after another too (the frames of ``st_lstm``). A bias b >= 0 draws with deviation exp(-b).

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
        self.points = points = in_width // config.maps if config.maps else 1
        if config.maps and (in_width % config.maps or scale.reals % points):
            raise UsageError(
                f"outputs of {in_width} numbers are no {config.maps} maps over the points of frames of {scale.reals} "
                "numbers; set task.head.maps to the maps of the last cell."
            )
        super().__init__(in_width if not config.maps else config.maps, scale, config, scale.reals // points)
        self.in_width = in_width

    def outputs(self, h: Tensor) -> Tensor:
        """See :class:`FrameHead`."""
        if not self.config.maps:
            return super().outputs(h)
        of_points = h.unflatten(-1, (self.config.maps, self.points)).transpose(-1, -2)
        return super().outputs(of_points).transpose(-1, -2).flatten(-2)

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
