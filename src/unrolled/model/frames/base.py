"""The contract of a head of frames: from hidden states to a density of the next vector of numbers."""

import math
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.kernels.linear import glue_linear
from unrolled.model.heads.base import Head

__all__ = ["FrameHead", "FrameHeadConfig", "Scale"]


class FrameHeadConfig(Config):
    """Base of the configurations of heads of frames. A subclass fixes ``name`` to the name in the table."""

    name: str


class Scale(NamedTuple):
    """What frames are: real numbers, and behind them bits. shift, scale: one a real number; the model sees
    (x - shift) / scale, and says nats and draws in the numbers' own units. bits: how many bits there are."""

    shift: tuple[float, ...]
    scale: tuple[float, ...]
    bits: int

    @property
    def reals(self) -> int:
        """How many real numbers there are."""
        return len(self.shift)

    @property
    def channels(self) -> int:
        """All numbers of a frame."""
        return len(self.shift) + self.bits

    def scaled(self, frames: Tensor) -> Tensor:
        """(x - shift) / scale of frames (..., channels); bits stay."""
        if not self.reals:
            return frames
        shift, size = self._of(frames)
        return (frames - shift) / size

    def own(self, scaled: Tensor) -> Tensor:
        """The inverse of :meth:`scaled`."""
        if not self.reals:
            return scaled
        shift, size = self._of(scaled)
        return scaled * size + shift

    def _of(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and scale of every channel; those of bits are 0 and 1."""
        return (
            torch.tensor([*self.shift, *(0.0,) * self.bits], dtype=like.dtype, device=like.device),
            torch.tensor([*self.scale, *(1.0,) * self.bits], dtype=like.dtype, device=like.device),
        )


class FrameHead(Head):
    """Maps the last output h to a density of the next frame. A subclass gives :meth:`nats`, :meth:`draw` and
    :meth:`centre` of scaled frames, from :meth:`outputs`.

    Args:
        in_width: width of h. scale: what frames are. outputs: how many numbers the density is made from.

    Attributes:
        EXAMPLES: (config, what frames it can be tried on) of the tests.
    """

    Config: ClassVar[type[Any]]
    EXAMPLES: ClassVar[tuple[Any, ...]]
    biased: ClassVar[bool] = False
    """Whether draws can be biased towards what is likeliest."""

    def __init__(self, in_width: int, scale: Scale, config: Any, outputs: int):
        super().__init__(in_width, scale.channels, config)
        self.scale = scale
        self.weight, self.bias = nn.Parameter(torch.empty(outputs, in_width)), nn.Parameter(torch.zeros(outputs))
        if not self.weight.is_meta:
            nn.init.normal_(self.weight, 0, in_width**-0.5)

    @property
    def log_scale(self) -> float:
        """Nats that a frame has more in its own units than scaled."""
        return sum(math.log(one) for one in self.scale.scale)

    def outputs(self, h: Tensor) -> Tensor:
        """W h + b, (..., outputs)."""
        return glue_linear(h, self.weight, self.bias, self.compute, "head")

    def loss(
        self,
        h: Tensor,
        targets: Tensor,
        weight: Tensor | None = None,
        state: Any = None,
        reset: Tensor | None = None,
        masks: Any = None,
    ) -> tuple[Tensor, Tensor, Any]:
        """See :meth:`Head.loss`, with targets (batch, time, channels); nats of a frame are summed over its numbers."""
        nll = self.nats(self.outputs(h), self.scale.scaled(targets)) + self.log_scale
        total = nll.sum() if weight is None else (nll * weight.to(nll.dtype)).sum()
        return total, nll.detach(), state

    @torch.no_grad()
    def sample(self, h: Tensor, generator: torch.Generator, bias: float = 0.0) -> Tensor:
        """Frames (..., channels) drawn after each h (..., in_width).

        Args:
            generator: on the CPU, where everything is drawn, so that a device changes nothing.
            bias: 0 draws from the density; larger, nearer to what is likeliest, for heads that are :attr:`biased`.
        Raises:
            UsageError: a bias below zero, or of another head. UnrolledError: outputs that are not finite, of which no
                frame can be drawn, or a frame that is not.
        """
        if not (bias >= 0 and math.isfinite(bias)):
            raise UsageError("a bias is 0 or above; draw without one, or give such a number.")
        if bias and not self.biased:
            raise UsageError(f"the head {self.config.name} has no bias; leave it out.")
        outputs = self.outputs(h)
        sound = bool(outputs.isfinite().all())
        drawn = self.scale.own(self.draw(outputs, generator, bias)) if sound else None
        if drawn is None or not drawn.isfinite().all():
            raise UnrolledError("the model gives frames that are not finite; its weights are damaged or diverged.")
        return drawn

    @torch.no_grad()
    def mean(self, h: Tensor) -> Tensor:
        """The expected frame (..., channels) after each h; of bits the probability of 1."""
        return self.scale.own(self.centre(self.outputs(h)))

    def nats(self, z: Tensor, y: Tensor) -> Tensor:
        """-log density (...) of scaled frames y (..., channels). z: (..., outputs)."""
        raise NotImplementedError

    def draw(self, z: Tensor, generator: torch.Generator, bias: float) -> Tensor:
        """Scaled frames, see :meth:`sample`."""
        raise NotImplementedError

    def centre(self, z: Tensor) -> Tensor:
        """Scaled frames, see :meth:`mean`."""
        raise NotImplementedError

    def uniform_nats(self) -> float:
        """Nats of a frame of knowing nothing but the scale: a standard normal for each real number, log 2 a bit."""
        gaussian = 0.5 * math.log(2 * math.pi) + 0.5
        return self.scale.reals * gaussian + self.log_scale + self.scale.bits * math.log(2)


def uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform numbers of the shape, type and device of a tensor."""
    return torch.rand(like.shape, generator=generator, dtype=torch.float64).to(like.device, like.dtype)
