"""The contract of frames: sequences of vectors of numbers, by split."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.graph import Graph

__all__ = ["FrameSource", "FrameSplit", "FramesConfig"]

# Frames that are looked at together where a whole split is read.
_BLOCK = 1 << 14


class FramesConfig(Config):
    """Base of the configurations of frames. A subclass fixes ``name`` to the name in the table."""

    name: str


class FrameSplit:
    """Sequences of frames, one after another.

    Args:
        values: (frames, channels) numbers of any type; an array that is mapped into memory is read in parts.
        starts: ascending positions at which sequences begin, the first of them 0.
        name: of the split, for sentences.
    Raises:
        UsageError: no frame, an empty sequence, or beginnings that do not ascend from 0.
    """

    def __init__(self, values: np.ndarray, starts: Sequence[int] | np.ndarray, name: str = "this split"):
        self._values, self.starts, self.name = values, np.asarray(starts, np.int64), name
        if values.ndim != 2 or not values.size:
            raise UsageError(f"{name} has no frames; give (frames, channels) numbers.")
        ends = np.append(self.starts, len(values))
        if not len(self.starts) or self.starts[0] or (np.diff(ends) <= 0).any():
            raise UsageError(f"the sequences of {name} begin at positions that do not ascend from 0; correct them.")

    @classmethod
    def of(cls, sequences: Sequence[np.ndarray], name: str = "this split") -> "FrameSplit":
        """From one array (frames, channels) a sequence. Raises UsageError where one is empty."""
        sizes = [len(one) for one in sequences]
        if not sizes or not min(sizes):
            raise UsageError(f"{name} has an empty sequence, or none; leave empty ones out.")
        return cls(np.concatenate(list(sequences)), np.cumsum([0, *sizes[:-1]]), name)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def channels(self) -> int:
        """Numbers of a frame."""
        return self._values.shape[1]

    def ids(self, start: int, stop: int) -> np.ndarray:
        """Frames start..stop-1, (frames, channels) float32; so named because a stream asks for the ids of tokens."""
        with np.errstate(over="ignore"):  # infinite, which is refused where a file is opened
            return np.array(self._values[start:stop], np.float32)

    def lengths(self) -> np.ndarray:
        """Frames of each sequence."""
        return np.diff(self.starts, append=len(self))

    def beginning(self, limit: int | None) -> "FrameSplit":
        """The first ``limit`` frames; the last sequence may be cut."""
        if limit is None or limit >= len(self):
            return self
        return FrameSplit(self._values[:limit], self.starts[self.starts < limit], self.name)

    def check(self, bits: int) -> None:
        """Read all of it once.

        Args:
            bits: so many of the last channels are 0 or 1.
        Raises:
            UsageError: a number that is not finite, or one that is neither 0 nor 1 among the bits.
        """
        for begin in range(0, len(self), _BLOCK):
            block = self.ids(begin, begin + _BLOCK)
            if not np.isfinite(block).all():
                raise UsageError(f"{self.name} has a number that is not finite in float32; leave such frames out.")
            last = block[:, self.channels - bits :]
            if bits and not np.isin(last, (0, 1)).all():
                raise UsageError(
                    f"{self.name} has a number among its last {bits} channels that is neither 0 nor 1; lower bits, or "
                    "correct the file."
                )

    def moments(self, channels: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, float64, of each of the first ``channels`` over all frames."""
        total, square = np.zeros(channels), np.zeros(channels)
        for begin in range(0, len(self), _BLOCK):
            total += self.ids(begin, begin + _BLOCK)[:, :channels].sum(0, np.float64)
        mean = total / len(self)
        for begin in range(0, len(self), _BLOCK):
            square += np.square(self.ids(begin, begin + _BLOCK)[:, :channels] - mean).sum(0)
        return mean, np.sqrt(square / len(self))

    @cached_property
    def checksum(self) -> str:
        """Of the numbers, and of where sequences begin."""
        content = hashlib.sha256(repr((self._values.shape, self.starts.tolist())).encode())
        for begin in range(0, len(self), _BLOCK):
            content.update(self.ids(begin, begin + _BLOCK).tobytes())
        return content.hexdigest()


class FrameSource(ABC):
    """One kind of frames.

    Args:
        config: its settings.

    Attributes:
        Config, EXAMPLES: the config class, and configs that need no file.
        bits: how many of the last channels are 0 or 1; the others are real numbers.
        draws: whether frames are offsets of a pen, with a bit that says that it is lifted.
        letters: what the texts that are written are made of; empty where there are none.
    """

    Config: ClassVar[type[FramesConfig]]
    EXAMPLES: ClassVar[tuple[FramesConfig, ...]]
    draws: ClassVar[bool] = False
    letters: ClassVar[tuple[str, ...]] = ()
    bits: int = 0

    def __init__(self, config: Any):
        self.config = config

    @property
    def channels(self) -> int | None:
        """Numbers of a frame, where that is known without the data."""
        return None

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of a frame that is a picture; None of others."""
        return None

    @property
    def graph(self) -> Graph | None:
        """Of a frame whose channels are features one after another, each over the nodes; None of others."""
        return None

    @abstractmethod
    def splits(self) -> dict[str, FrameSplit]:
        """Splits by name; ``train``, and ``valid`` where validations are to be made.

        Raises:
            UsageError: data that are absent or wrong, in one sentence.
        """

    def texts(self) -> dict[str, list[str]]:
        """What each sequence of each split writes, of :attr:`letters`."""
        return {}

    def told(self, frames: np.ndarray) -> list[Any]:
        """Frames (frames, channels) as JSON values that people and programs read."""
        return [[round(float(value), 6) for value in frame] for frame in frames]
