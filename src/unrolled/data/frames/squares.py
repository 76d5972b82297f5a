"""Pictures that are made here: squares that move over a plane."""

from typing import Literal

import numpy as np
import torch
from pydantic import Field

from unrolled.core.random import RandomStreams
from unrolled.data.frames.base import FramesConfig, FrameSource, FrameSplit

__all__ = ["Squares", "SquaresConfig"]


class SquaresConfig(FramesConfig):
    """Settings of moving squares."""

    name: Literal["squares"] = "squares"
    side: int = Field(default=12, ge=4, le=128, description="points of a side of the plane")
    square: int = Field(default=4, ge=1, le=64, description="points of a side of the square")
    length: int = Field(default=10, ge=2, le=1 << 12, description="frames of a sequence")
    fastest: int = Field(default=2, ge=1, le=16, description="points of a step along each axis, at most")
    sequences: int = Field(default=1000, ge=1, le=1 << 20, description="of training; validation and test have a tenth")
    noise: float = Field(default=0.05, ge=0, le=1, description="deviation of the noise on every point")
    seed: int = Field(default=1, ge=0, description="of the sequences; the seed of a run does not change them")


class Squares(FrameSource):
    """A square that moves in a straight line and is thrown back by the borders (after the moving digits of Srivastava,
    Mansimov and Salakhutdinov 2015, arXiv:1502.04681). A frame is the plane, row after row; place and step, which is
    not (0, 0), are drawn for each sequence. Noise keeps every point from being constant."""

    Config = SquaresConfig
    EXAMPLES = (SquaresConfig(side=5, square=2, length=4, sequences=20),)
    config: SquaresConfig

    @property
    def channels(self) -> int:
        """See :class:`FrameSource`."""
        return self.config.side**2

    @property
    def grid(self) -> tuple[int, int]:
        """See :class:`FrameSource`."""
        return self.config.side, self.config.side

    def splits(self) -> dict[str, FrameSplit]:
        """See :class:`FrameSource`."""
        c = self.config
        counts = {"train": c.sequences, "valid": max(1, c.sequences // 10), "test": max(1, c.sequences // 10)}
        return {
            split: FrameSplit.of([self._sequence(split, number) for number in range(count)], f"the {split} sequences")
            for split, count in counts.items()
        }

    def _sequence(self, split: str, number: int) -> np.ndarray:
        c, generator = self.config, RandomStreams(self.config.seed).generator(f"squares.{split}", number)
        room = max(1, c.side - c.square)
        place = torch.randint(0, room + 1, (2,), generator=generator).tolist()
        step = [0, 0]
        while step == [0, 0]:
            step = torch.randint(-c.fastest, c.fastest + 1, (2,), generator=generator).tolist()
        frames = c.noise * torch.randn(c.length, c.side, c.side, generator=generator).numpy()
        for frame in frames:
            x, y = place
            frame[x : x + c.square, y : y + c.square] += 1
            for axis in (0, 1):
                place[axis] += step[axis]
                if not 0 <= place[axis] <= room:
                    step[axis] = -step[axis]
                    place[axis] = max(0, min(room, place[axis])) * 2 - place[axis]
                    place[axis] = max(0, min(room, place[axis]))
        return frames.reshape(c.length, -1).astype(np.float32)
