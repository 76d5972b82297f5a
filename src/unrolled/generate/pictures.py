"""Pictures that a model of frames makes after some that it was given, and a strip of both."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.random import RandomStreams
from unrolled.data.frames import FrameSplit
from unrolled.model import LanguageModel, ModelState

__all__ = ["Continued", "continue_frames", "continued", "strip"]

# A point of a picture is so many points of the strip, in which a picture is at least so wide.
_LEAST, _WIDE = 2, 96
_PAPER, _LINE = 255, 96


class Continued(NamedTuple):
    """given, true, made: frames (frames, channels) of a sequence: what the model was given, what came then, and what it
    made in its place."""

    given: np.ndarray
    true: np.ndarray
    made: np.ndarray


@torch.no_grad()
def continue_frames(model: LanguageModel, given: Tensor, count: int, state: ModelState | None = None) -> Tensor:
    """Frames that the model makes after given ones, each the mean of what it expects and the input of the next.

    Args:
        given: (rows, frames, channels), from the beginning of each sequence, one frame or more. count: of frames to
            make, one or more. state: that before the sequences; None is the initial one.
    Returns:
        (rows, count, channels).
    """
    read = torch.cat([torch.zeros_like(given[:, :1]), given[:, :-1]], 1)
    state, last, made = model(read, state).state, given[:, -1:], []
    for _ in range(count):
        out = model(made[-1] if made else last, state)
        state = out.state
        made.append(model.head.mean(out.dropped))
    return torch.cat(made, 1)


def continued(
    model: LanguageModel, split: FrameSplit, given: int, count: int, sequences: int, seed: int
) -> list[Continued]:
    """Sequences of a split, drawn by a seed, and what the model makes of them.

    Args:
        given: frames of each that the model is given. count: frames to make at most; a sequence may end before.
        sequences: how many, all of them different.
    Raises:
        UsageError: fewer sequences than that are long enough. UnrolledError: the model makes a number that is not
            finite.
    """
    longer = np.flatnonzero(split.lengths() > given)
    if len(longer) < sequences:
        raise UsageError(
            f"{split.name} are {len(longer)} with more than the {given} frames that are given; lower --samples."
        )
    order = torch.randperm(len(longer), generator=RandomStreams(seed).generator("continued"))[:sequences]
    found = []
    for number in longer[order.numpy()]:
        begin = int(split.starts[number])
        frames = split.ids(begin, begin + min(int(split.lengths()[number]), given + count))
        start = torch.from_numpy(frames[:given]).to(model.device, model.dtype).unsqueeze(0)
        made = continue_frames(model, start, len(frames) - given)[0].float().cpu().numpy()
        if not np.isfinite(made).all():
            raise UnrolledError("the model makes frames that are not finite; its weights are damaged or diverged.")
        found.append(Continued(frames[:given], frames[given:], made))
    return found


def strip(sequences: Sequence[Continued], grid: tuple[int, int]) -> np.ndarray:
    """A picture in shades of grey, uint8 (height, width), of two lines a sequence: the given frames and those that came
    then; below, under these, those that the model made. A grey line stands before the first of them. The smallest
    true number of the strip is black, the largest white, and what lies beyond is cut.

    Args:
        grid: rows and columns of a frame.
    """
    rows, columns = grid
    times = max(_LEAST, -(-_WIDE // columns))
    true = np.concatenate([part for one in sequences for part in (one.given, one.true)])
    low, high = float(true.min()), float(true.max())

    def shades(frames: np.ndarray) -> list[np.ndarray]:
        share = np.clip((frames - low) / ((high - low) or 1.0), 0, 1)
        pictures = np.round(255 * np.nan_to_num(share)).astype(np.uint8).reshape(-1, rows, columns)
        return list(pictures.repeat(times, 1).repeat(times, 2))

    gap, tall, wide = 4, rows * times, columns * times
    longest = max(len(one.given) + len(one.true) for one in sequences)
    paper = np.full(
        (len(sequences) * (2 * (tall + gap) + 2 * gap) - gap, longest * (wide + gap) + gap), _PAPER, np.uint8
    )
    top = gap
    for one in sequences:
        before = len(one.given)
        for place, picture in enumerate([*shades(one.given), *shades(one.true)]):
            paper[top : top + tall, gap + place * (wide + gap) :][:, :wide] = picture
        for place, picture in enumerate(shades(one.made), before):
            paper[top + tall + gap : top + 2 * tall + gap, gap + place * (wide + gap) :][:, :wide] = picture
        left = before * (wide + gap) + gap // 2 - 1
        paper[top : top + 2 * tall + gap, left : left + 2] = _LINE
        top += 2 * (tall + gap) + 2 * gap
    return paper
