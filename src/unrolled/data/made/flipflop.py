"""The flip-flop language."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from unrolled.core.errors import UsageError
from unrolled.data.made.base import Answers, Batch, Problem, ProblemConfig, Span, shifted

__all__ = ["FlipFlop", "FlipFlopConfig"]

_WRITE, _READ, _IGNORE, _ZERO = 1, 2, 3, 4
_FARTHEST = 8


class FlipFlopConfig(ProblemConfig):
    """Settings of the flip-flop language."""

    name: Literal["flipflop"] = "flipflop"
    length: Span = Field(default=64, description="symbols of a row: an instruction and a bit in turn")
    write: float = Field(default=0.1, ge=0, le=1, description="chance of an instruction to write")
    read: float = Field(default=0.1, ge=0, le=1, description="chance of an instruction to read")


class FlipFlop(Problem):
    """Instructions to write, to read and to ignore, each with a bit: the bit behind "read" is the one written last (Liu
    et al. 2023, arXiv:2306.00946). The first instruction writes, the last reads; bits of the others are random. An odd
    length is rounded down. Group ``distance``: instructions since the write, as the exponent of
    the power of two not above it, at most 8.
    """

    Config = FlipFlopConfig
    EXAMPLES = (FlipFlopConfig(length=12, write=0.2, read=0.3), FlipFlopConfig(length=(20, 30), write=0.01, read=0.05))
    fed = True

    def check(self) -> None:
        """See :meth:`Problem.check`."""
        if self.config.write + self.config.read > 1:
            raise UsageError("the chances to write and to read are more than 1 together; lower one of them.")
        if self.shortest().config.length < 4:
            raise UsageError("flipflop needs rows of 4 symbols at least; raise length.")

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start, instructions, bits."""
        return (">", "w", "r", "i", "0", "1")

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        c, steps = self.config, self.config.length // 2
        u = g.random((rows, steps))
        kind = np.where(u < c.write, _WRITE, np.where(u < c.write + c.read, _READ, _IGNORE))
        kind[:, 0], kind[:, -1] = _WRITE, _READ
        bits = g.integers(0, 2, (rows, steps))
        last = np.maximum.accumulate(np.where(kind == _WRITE, np.arange(steps), 0), 1)
        bits = np.where(kind == _READ, np.take_along_axis(bits, last, 1), bits)
        text = np.stack([kind, _ZERO + bits], 2).reshape(rows, -1)
        inputs, targets = shifted(text)
        asked = np.zeros(inputs.shape, bool)
        asked[:, 1::2] = kind == _READ
        distance = np.full(inputs.shape, -1)
        distance[:, 1::2] = _power(np.arange(steps) - last)
        return Batch(inputs, targets, asked.astype(np.float32), {"distance": np.where(asked, distance, -1)})

    def answers(self, batch: Batch) -> Answers:
        """Keeps the bit."""
        targets, weight = np.zeros_like(batch.inputs), np.zeros_like(batch.weight)
        for row, line in enumerate(batch.inputs.tolist()):
            bit = None
            for place in range(1, len(line)):
                if line[place - 1] == _WRITE:
                    bit = line[place]
                if line[place] == _READ:
                    assert bit is not None
                    targets[row, place], weight[row, place] = bit, 1
        return Answers(targets, weight)

    def time(self) -> int:
        """An instruction and a bit in turn."""
        return 2 * (self.longest().config.length // 2)

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Longer rows, with fewer instructions that matter."""
        return {"length": (64, 256, 640), "write": (0.1, 0.01), "read": (0.1, 0.01)}

    def chance(self) -> float:
        """Of two bits."""
        return 0.5

    def group_values(self) -> dict[str, Sequence[int]]:
        """From a neighbour to the whole row."""
        return {"distance": range(int(_power(np.array(self.longest().config.length // 2 - 1))) + 1)}


def _power(distance: np.ndarray) -> np.ndarray:
    """The exponent of the power of two not above a distance."""
    return np.minimum(np.log2(np.maximum(distance, 1)).astype(np.int64), _FARTHEST)
