"""Drawing frames of numbers from a model of frames, and what they look like."""

from typing import Any

import numpy as np
import torch

from unrolled.core.random import RandomStreams
from unrolled.model import LanguageModel

__all__ = ["draw_frames", "strokes_svg"]

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
        UsageError: a bias that the head does not take.
    """
    head: Any = model.head
    generator = RandomStreams(seed).generator("frames")
    frame = torch.zeros(rows, 1, model.vocab_size, dtype=model.dtype, device=model.device)
    state, drawn = model.initial_state(rows), []
    for _ in range(count):
        out = model(frame, state)
        frame, state = head.sample(out.dropped, generator, bias), out.state
        drawn.append(frame.float().cpu())
    return torch.cat(drawn, 1).numpy()


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
