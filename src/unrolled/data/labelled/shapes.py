"""Grids of numbers with a label, made here: shapes of a plane, and squares that move through time."""

from typing import Literal

import numpy as np
from pydantic import Field

from unrolled.data.labelled.base import LabelledConfig, LabelledSource, LabelledSplit

__all__ = ["Directions", "DirectionsConfig", "Shapes", "ShapesConfig"]


class _GridConfig(LabelledConfig):
    side: int = Field(default=8, ge=6, le=64, description="points of a side of the plane")
    noise: float = Field(default=0.2, ge=0, le=10, description="deviation of the noise on every point")
    rows: int = Field(
        default=4096, ge=1, le=1 << 22, description="rows of training; validation and test have an eighth"
    )
    seed: int = Field(default=0, ge=0, le=1 << 31, description="of the rows")


class _Grids(LabelledSource):
    kind = "frames"
    channels = 1
    config: _GridConfig

    def texts(self) -> dict[str, tuple[list[str], np.ndarray]]:
        """See :class:`LabelledSource`; these are no texts."""
        raise NotImplementedError

    def splits(self) -> dict[str, LabelledSplit]:
        """See :class:`LabelledSource`. Points in the order of rows of the plane, and frame after frame."""
        c, found = self.config, {}
        for number, split in enumerate(("train", "valid", "test")):
            g = np.random.default_rng([c.seed, number])
            count = c.rows if split == "train" else max(1, c.rows // 8)
            labels = g.integers(0, len(self.classes), count)
            grids = [self.grid(g, int(label)) for label in labels]
            rows = [
                (grid + c.noise * g.standard_normal(grid.shape)).astype(np.float32).reshape(-1, 1) for grid in grids
            ]
            found[split] = LabelledSplit(rows, labels, name=f"the {split} rows")
        return found

    def grid(self, g: np.random.Generator, label: int) -> np.ndarray:
        """A grid of one class, without noise."""
        raise NotImplementedError


class ShapesConfig(_GridConfig):
    """Settings of shapes."""

    name: Literal["shapes"] = "shapes"


class Shapes(_Grids):
    """A square, a frame, a cross, a diagonal cross, three bars across or three upright, of side 5, anywhere in a plane
    of side x side points."""

    Config = ShapesConfig
    classes = ("square", "frame", "cross", "diagonal", "bars", "stripes")

    def grid(self, g: np.random.Generator, label: int) -> np.ndarray:
        """See :class:`_Grids`."""
        side, size = self.config.side, 5
        steps = np.arange(size)
        shape = np.zeros((size, size))
        if self.classes[label] == "square":
            shape[:] = 1
        elif self.classes[label] == "frame":
            shape[[0, -1]] = shape[:, [0, -1]] = 1
        elif self.classes[label] == "cross":
            shape[size // 2] = shape[:, size // 2] = 1
        elif self.classes[label] == "diagonal":
            shape[steps, steps] = shape[steps, size - 1 - steps] = 1
        else:
            shape[::2] = 1
        shape = shape.T if self.classes[label] == "stripes" else shape
        plane = np.zeros((side, side))
        x, y = g.integers(0, side - size + 1, 2)
        plane[x : x + size, y : y + size] = shape
        return plane


class DirectionsConfig(_GridConfig):
    """Settings of moving squares."""

    name: Literal["directions"] = "directions"
    frames: int = Field(default=4, ge=2, le=64, description="frames of a row")


class Directions(_Grids):
    """A square of side 2 that moves one step a frame in one of eight directions, over borders to the other side."""

    Config = DirectionsConfig
    classes = ("north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west")
    config: DirectionsConfig

    def grid(self, g: np.random.Generator, label: int) -> np.ndarray:
        """See :class:`_Grids`."""
        c = self.config
        angle = label * np.pi / 4
        step = np.rint([-np.cos(angle), np.sin(angle)]).astype(int)
        x, y = g.integers(0, c.side, 2)
        grid = np.zeros((c.frames, c.side, c.side))
        for t in range(c.frames):
            for dx in (0, 1):
                for dy in (0, 1):
                    grid[t, (x + t * step[0] + dx) % c.side, (y + t * step[1] + dy) % c.side] = 1
        return grid
