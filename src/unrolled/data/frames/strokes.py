"""Pen strokes that are made here: letters that are Lissajous figures."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from unrolled.core.random import RandomStreams
from unrolled.data.frames.base import FramesConfig, FrameSource, FrameSplit

__all__ = ["LETTERS", "Strokes", "StrokesConfig"]

# x = sin(p t), y = sin(q t + phase), t from 0 to the last figure times 2 pi.
_FIGURES = {
    "a": (1, 1, math.pi / 2, 1.0),
    "b": (1, 2, 0.0, 1.0),
    "c": (1, 1, math.pi / 3, 0.6),
    "d": (2, 1, math.pi / 2, 1.0),
    "e": (2, 3, math.pi / 4, 1.0),
}
LETTERS = tuple(_FIGURES)
"""The letters that there are."""

_WIDTH = 2.6
# Points of a letter; the figures with more turns need more.
_POINTS = {"a": 14, "b": 20, "c": 10, "d": 20, "e": 28}


class StrokesConfig(FramesConfig):
    """Settings of made strokes."""

    name: Literal["strokes"] = "strokes"
    lines: int = Field(default=200, ge=1, le=1 << 16, description="lines to train on")
    held: int = Field(default=50, ge=1, le=1 << 16, description="lines of validation, and of test")
    letters: int = Field(default=4, ge=1, le=64, description="most letters of a line; the least is half as many")
    noise: float = Field(
        default=0.03, ge=0, le=1, description="standard deviation of each point; a letter has radius 1"
    )
    seed: int = Field(default=1, ge=0, description="of the lines; the seed of a run does not change them")


class Strokes(FrameSource):
    """Lines of the letters a to e, written from left to right. A frame is the pen's way from the last point to this one
    (x to the right, y upwards) and a bit: it is lifted behind this point. Size and slant vary from line to line."""

    Config = StrokesConfig
    EXAMPLES = (StrokesConfig(lines=12, held=3, letters=2),)
    bits = 1
    draws = True
    letters = LETTERS

    @property
    def channels(self) -> int:
        """See :class:`FrameSource`."""
        return 3

    def _sizes(self) -> dict[str, int]:
        return {"train": self.config.lines, "valid": self.config.held, "test": self.config.held}

    def splits(self) -> dict[str, FrameSplit]:
        """See :class:`FrameSource`."""
        return {
            split: FrameSplit.of([self._line(split, number)[1] for number in range(count)])
            for split, count in self._sizes().items()
        }

    def texts(self) -> dict[str, list[str]]:
        """See :class:`FrameSource`."""
        return {split: [self._line(split, k)[0] for k in range(count)] for split, count in self._sizes().items()}

    def _line(self, split: str, number: int) -> tuple[str, np.ndarray]:
        generator = RandomStreams(self.config.seed).generator(f"strokes.{split}", number)
        drawn = torch.rand(self.config.letters + 3, generator=generator, dtype=torch.float64).tolist()
        least = (self.config.letters + 1) // 2
        count = least + int(drawn[0] * (self.config.letters - least + 1))
        text = "".join(LETTERS[int(share * len(LETTERS))] for share in drawn[3 : 3 + count])
        return text, write(text, 0.9 + 0.2 * drawn[1], 0.3 * drawn[2] - 0.15, self.config.noise, generator)

    def told(self, frames: np.ndarray) -> list[Any]:
        """See :meth:`FrameSource.told`; [dx, dy, lifted] a point."""
        return [[round(float(x), 4), round(float(y), 4), int(lifted)] for x, y, lifted in frames]


def write(
    text: Sequence[str], size: float, slant: float, noise: float, generator: torch.Generator | None = None
) -> np.ndarray:
    """Letters as frames (points, 3).

    Args:
        size: times the figures. slant: y moves x by so much of itself. noise: standard deviation of each point.
    """
    points, lifted = [], []
    for place, letter in enumerate(text):
        p, q, phase, part = _FIGURES[letter]
        t = np.linspace(0, 2 * math.pi * part, _POINTS[letter])
        points.append(np.stack([np.sin(p * t) + _WIDTH * place, np.sin(q * t + phase)], 1))
        lifted.append(np.arange(len(t)) == len(t) - 1)
    where = size * np.concatenate(points)
    where[:, 0] += slant * where[:, 1]
    if noise:
        where += noise * torch.randn(where.shape, generator=generator, dtype=torch.float64).numpy()
    offsets = np.diff(where, axis=0, prepend=where[:1])
    return np.concatenate([offsets, np.concatenate(lifted)[:, None]], 1).astype(np.float32)
