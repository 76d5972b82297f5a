"""The ends of a model of frames: a linear map in the place of the embedding, and a head of frames."""

from typing import Any

import torch
from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.kernels.dispatch import Compute
from unrolled.kernels.linear import glue_linear
from unrolled.model.config import ModelConfig
from unrolled.model.ends import Ends
from unrolled.model.frames import FRAME_HEADS, FrameHead, FrameHeadConfig, Scale

__all__ = ["FrameEnds", "FrameReader", "PlainReader"]


class FrameReader(nn.Module):
    """Scaled frames times a matrix: (batch, time, channels) -> (batch, time, width).

    Args:
        scale: what frames are. width: of the output.

    Attributes:
        compute: backend and precision of the product; set by the model.
    """

    def __init__(self, scale: Scale, width: int):
        super().__init__()
        self.scale, self.out_width, self.compute = scale, width, Compute()
        self.weight, self.bias = nn.Parameter(torch.empty(width, scale.channels)), nn.Parameter(torch.zeros(width))
        if not self.weight.is_meta:
            nn.init.normal_(self.weight, 0, scale.channels**-0.5)

    def forward(self, frames: Tensor, row_mask: None = None) -> Tensor:
        """W (x - shift) / scale + b. A frame of zeros before the first is read as any other."""
        return glue_linear(self.scale.scaled(frames), self.weight, self.bias, self.compute, "embedding")

    def looked_up(self) -> list[Tensor]:
        """Nothing is: the matrix is multiplied with."""
        return []


class PlainReader(nn.Module):
    """Scaled frames as they are, (batch, time, channels), for cells that know what a frame looks like.

    Args:
        scale: what frames are.
    """

    def __init__(self, scale: Scale):
        super().__init__()
        self.scale, self.out_width, self.compute = scale, scale.channels, Compute()
        # says where the model is, and of what type
        self.register_buffer("weight", torch.zeros(1), persistent=False)

    def forward(self, frames: Tensor, row_mask: None = None) -> Tensor:
        """(x - shift) / scale."""
        return self.scale.scaled(frames)

    def looked_up(self) -> list[Tensor]:
        """There is no matrix."""
        return []


class FrameEnds(Ends):
    """See :class:`unrolled.model.ends.Ends`.

    Args:
        scale: what frames are. head: the config of the head. plain: frames go to the first layer as they are.
    """

    def __init__(self, scale: Scale, head: FrameHeadConfig, plain: bool = False):
        self.scale, self.config, self.plain = scale, head, plain

    def reader(self, config: ModelConfig, vocab_size: int) -> Any:
        """See :class:`unrolled.model.ends.Ends`. Raises UsageError for settings that only tokens have."""
        for name, own in (("head", config.head), ("embedding", config.embedding)):
            if own != getattr(ModelConfig(), name):
                raise UsageError(f"a model of frames has no model.{name}; leave it out and set task.head.")
        if config.dropout.embedding or config.dropout.projected:
            raise UsageError("frames have no rows to drop; leave out dropout.embedding and dropout.projected.")
        return PlainReader(self.scale) if self.plain else FrameReader(self.scale, config.layer_widths()[0])

    def head(self, config: ModelConfig, vocab_size: int, width: int, reader: Any) -> FrameHead:
        """See :class:`unrolled.model.ends.Ends`."""
        make: Any = FRAME_HEADS[self.config.name]
        return make(width, self.scale, self.config)
