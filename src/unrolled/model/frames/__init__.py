"""Models of frames: vectors of numbers in the place of tokens. The table of their heads."""

from typing import Annotated

from pydantic import BeforeValidator, SerializeAsAny

from unrolled.core.registry import Registry
from unrolled.model.frames.base import FrameHead, FrameHeadConfig, Scale

__all__ = ["FRAME_HEADS", "AnyFrameHeadConfig", "FrameHead", "FrameHeadConfig", "Scale"]

FRAME_HEADS: "Registry[type[FrameHead]]" = Registry(
    "head of frames",
    {
        "bernoulli": "unrolled.model.frames.bernoulli:BernoulliHead",
        "values": "unrolled.model.frames.values:ValuesHead",
        "mixture": "unrolled.model.frames.mixture:MixtureHead",
    },
)

AnyFrameHeadConfig = Annotated[SerializeAsAny[FrameHeadConfig], BeforeValidator(FRAME_HEADS.parse)]
"""A field that takes the config of any head of frames, or its name alone."""
