"""Windows of frames: parallel columns for training, rows by length for measuring."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data.frames.base import FrameSplit
from unrolled.data.plan import StreamConfig
from unrolled.data.stream import Stream, Window

__all__ = ["FrameRows", "FrameStream", "frame_rows"]


class FrameStream(Stream):
    """As :class:`unrolled.data.Stream`, of frames: inputs and targets of its windows are float32 (columns, time,
    channels), the input of a frame is the one before it, and zeros where a sequence begins; there ``reset`` is true.
    Every frame has weight 1.

    Args:
        split: sequences of frames. config, streams, own: see there.
    Raises:
        UsageError: too few frames; columns that are to begin at lines.
    """

    unit = "frames"

    def __init__(self, split: FrameSplit, config: StreamConfig, streams: RandomStreams, own: range | None = None):
        if config.align == "line":
            raise UsageError("frames have no lines; set stream.align=token.")
        super().__init__(split, config, streams, 0, own)

    def _between(self, low: int, high: int) -> np.ndarray:
        """Frames low-1..high-1; zeros come before the first."""
        if low:
            return self._split.ids(low - 1, high)
        frames = self._split.ids(0, high)
        return np.concatenate([np.zeros_like(frames[:1]), frames])

    def window(self, epoch: int, index: int) -> Window:
        """See :class:`unrolled.data.Stream`."""
        window = super().window(epoch, index)
        return window._replace(weight=torch.ones(window.inputs.shape[:2]))


class FrameRows(NamedTuple):
    """A part of some sequences side by side. inputs, targets: (rows, time, channels) float32; weight: (rows, time), 0
    behind a sequence's end. first: whether the sequences begin with it; else the state is that after the last part.
    order: (rows,) numbers of the sequences."""

    inputs: Tensor
    targets: Tensor
    weight: Tensor
    first: bool
    order: np.ndarray


def frame_rows(split: FrameSplit, batch: int = 32, window: int = 256) -> Iterator[FrameRows]:
    """All sequences from their beginnings, in rows of similar length, the shortest first.

    Args:
        batch: sequences side by side. window: frames of each at once, so that long ones need no more memory.
    """
    lengths = split.lengths()
    order = np.lexsort((np.arange(len(lengths)), lengths))
    for low in range(0, len(order), batch):
        chosen = order[low : low + batch]
        longest = int(lengths[chosen[-1]])
        before = np.zeros((len(chosen), 1, split.channels), np.float32)
        for begin in range(0, longest, window):
            time = min(window, longest - begin)
            targets = np.zeros((len(chosen), time, split.channels), np.float32)
            weight = np.zeros((len(chosen), time), np.float32)
            for row, number in enumerate(chosen):
                here = min(max(int(lengths[number]) - begin, 0), time)
                start = int(split.starts[number]) + begin
                if here:
                    targets[row, :here], weight[row, :here] = split.ids(start, start + here), 1
            inputs = np.concatenate([before, targets[:, :-1]], 1)
            before = targets[:, -1:]
            numbers = (torch.from_numpy(part) for part in (inputs, targets, weight))
            yield FrameRows(*numbers, first=not begin, order=chosen)
