"""Drawing frames of numbers from a model of frames, and what they look like."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrolled.core.random import RandomStreams
from unrolled.model import LanguageModel, ModelState

__all__ = ["draw_frames", "strokes_svg", "write_frames"]

_MARGIN = 1.0


@torch.inference_mode()
def draw_frames(model: LanguageModel, count: int, rows: int = 1, bias: float = 0.0, seed: int = 0) -> np.ndarray:
    """Sequences drawn from their beginnings, frame by frame, each the input of the next.

    Args:
        model: with a head of frames; its mode is left as it is.
        count: frames of each. rows: sequences, in one batch. bias: see :meth:`FrameHead.sample`.
        seed: equal seeds give equal frames.
    Returns:
        (rows, count, channels) float32, in the frames' own units.
    Raises:
        UsageError: a bias that the head does not take. UnrolledError: a number that is not finite.
    """
    return np.stack(list(islice(_steps(model, model.initial_state(rows), rows, bias, seed), count)), 1)


@torch.inference_mode()
def write_frames(
    model: LanguageModel, state: ModelState, length: int, count: int, rows: int = 1, bias: float = 0.0, seed: int = 0
) -> list[np.ndarray]:
    """Frames that write a text, each row until its window has left the text, when the place behind the last letter has
    more weight than every letter (Graves 2013, section 5.1), and the pen is lifted. The second condition is ours: early
    on a Gaussian may run ahead before the others have weight.

    Args:
        model: whose first layer is a ``gaussian_window``. state: to begin with, see
            :meth:`unrolled.tasks.written.Written.begun`. length: letters of the text. count: frames of each at most.
        rows, bias, seed: see :func:`draw_frames`.
    Returns:
        (frames, channels) float32 of each row.
    """
    seen: dict[str, Tensor] = {}

    def listen(layer: int, name: str, value: Tensor) -> None:
        if layer == 0 and name == "phi":
            seen["phi"] = value.reshape(rows, -1)

    ends, frames = np.full(rows, count), []
    for number, frame in enumerate(islice(_steps(model, state, rows, bias, seed, listen), count), 1):
        frames.append(frame)
        left = (seen["phi"][:, length] > seen["phi"][:, :length].amax(1)).cpu().numpy()
        ends = np.where(left & (frame[:, -1] > 0.5) & (ends == count), number, ends)
        if (ends < count).all():
            break
    drawn = np.stack(frames, 1)
    return [one[:end] for one, end in zip(drawn, ends, strict=True)]


def _steps(
    model: LanguageModel, state: ModelState, rows: int, bias: float, seed: int, tap: Any = None
) -> Iterator[np.ndarray]:
    """Frames (rows, channels) without end."""
    head: Any = model.head
    generator = RandomStreams(seed).generator("frames")
    frame = torch.zeros(rows, 1, model.vocab_size, dtype=model.dtype, device=model.device)
    while True:
        out = model(frame, state, tap=tap)
        frame, state = head.sample(out.dropped, generator, bias), out.state
        yield frame[:, 0].float().cpu().numpy()


def strokes_svg(frames: np.ndarray) -> str:
    """Pen strokes (points, 3), as :class:`unrolled.data.frames.strokes.Strokes` has them, as a picture in SVG: a line
    for each stretch between two lifts. A number that is not finite ends the picture."""
    fine = np.isfinite(frames).all(1)
    frames = frames if fine.all() else frames[: int(np.argmin(fine))]
    where = np.cumsum(frames[:, :2].astype(np.float64), 0)
    where[:, 1] *= -1  # the axis of a picture points downwards
    low = where.min(0, initial=0) - _MARGIN
    width, height = where.max(0, initial=0) + _MARGIN - low
    cuts = np.flatnonzero(frames[:, 2] > 0.5) + 1
    lines = [
        "<polyline points='" + " ".join(f"{x:.3f},{y:.3f}" for x, y in part) + "'/>"
        for part in np.split(where, cuts)
        if len(part)
    ]
    box = f"{low[0]:.3f} {low[1]:.3f} {width:.3f} {height:.3f}"
    style = "fill='none' stroke='black' stroke-width='0.12' stroke-linecap='round' stroke-linejoin='round'"
    return "\n".join([f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='{box}' {style}>", *lines, "</svg>", ""])
