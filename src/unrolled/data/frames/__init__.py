"""Streams that are no tokens: sequences of frames of numbers, and the table of where they come from.

A new kind is one file and one line here; the task ``frames``, its recipes, evaluation and generation then know it.
"""

from typing import Annotated

from pydantic import BeforeValidator, SerializeAsAny

from unrolled.core.registry import Registry
from unrolled.data.frames.base import FramesConfig, FrameSource, FrameSplit
from unrolled.data.frames.stream import FrameRows, FrameStream, frame_rows

__all__ = [
    "FRAMES",
    "AnyFramesConfig",
    "FrameRows",
    "FrameSource",
    "FrameSplit",
    "FrameStream",
    "FramesConfig",
    "frame_rows",
]

FRAMES: "Registry[type[FrameSource]]" = Registry(
    "kind of frames",
    {
        "chorales": "unrolled.data.frames.chorales:Chorales",
        "graph_waves": "unrolled.data.frames.graph_waves:GraphWaves",
        "files": "unrolled.data.frames.files:Files",
        "piano": "unrolled.data.frames.piano:Piano",
        "squares": "unrolled.data.frames.squares:Squares",
        "strokes": "unrolled.data.frames.strokes:Strokes",
    },
)

AnyFramesConfig = Annotated[SerializeAsAny[FramesConfig], BeforeValidator(FRAMES.parse)]
"""A field that takes the config of any kind of frames, or its name alone."""
