"""Chorales that are made here: four voices over Markov chords."""

from typing import Literal

import numpy as np
import torch
from pydantic import Field

from unrolled.core.random import RandomStreams
from unrolled.data.frames.base import FramesConfig, FrameSplit
from unrolled.data.frames.piano import LOWEST, NOTES, PianoRoll

__all__ = ["Chorales", "ChoralesConfig"]

# Degrees of the major scale that each chord is made of: I, ii, iii, IV, V, vi.
_SCALE = (0, 2, 4, 5, 7, 9, 11)
_CHORDS = ((0, 2, 4), (1, 3, 5), (2, 4, 6), (3, 5, 0), (4, 6, 1), (5, 0, 2))
# The chord that follows each, as shares: what harmony books call usual.
_NEXT = (
    (0.05, 0.15, 0.05, 0.30, 0.30, 0.15),
    (0.05, 0.00, 0.05, 0.10, 0.75, 0.05),
    (0.05, 0.10, 0.00, 0.35, 0.05, 0.45),
    (0.30, 0.20, 0.00, 0.00, 0.45, 0.05),
    (0.70, 0.00, 0.05, 0.05, 0.00, 0.20),
    (0.05, 0.40, 0.10, 0.30, 0.15, 0.00),
)
# Lowest and highest MIDI number of bass, tenor, alto and soprano.
_RANGES = ((43, 59), (50, 66), (57, 74), (62, 79))
_SHORTEST, _LONGEST = 4, 10  # chords of a piece
_KEYS = 12


class ChoralesConfig(FramesConfig):
    """Settings of made chorales."""

    name: Literal["chorales"] = "chorales"
    pieces: int = Field(default=200, ge=1, le=1 << 16, description="pieces to train on")
    held: int = Field(default=50, ge=1, le=1 << 16, description="pieces of validation, and of test")
    seed: int = Field(default=1, ge=0, description="of the pieces; the seed of a run does not change them")


class Chorales(PianoRoll):
    """Pieces of 4 to 10 chords of one key, each held for two, three or four steps: the bass sings a chord's root, the
    other voices go to its nearest note above the voice below. A piece begins and ends on the first degree."""

    Config = ChoralesConfig
    EXAMPLES = (ChoralesConfig(pieces=24, held=4),)

    def splits(self) -> dict[str, FrameSplit]:
        """See :class:`FrameSource`."""
        config, streams = self.config, RandomStreams(self.config.seed)
        sizes = {"train": config.pieces, "valid": config.held, "test": config.held}
        return {
            split: FrameSplit.of([_piece(streams.generator(f"chorales.{split}", k)) for k in range(count)])
            for split, count in sizes.items()
        }


def _piece(generator: torch.Generator) -> np.ndarray:
    def draw() -> float:
        return float(torch.rand((), generator=generator, dtype=torch.float64))

    key = int(draw() * _KEYS)
    chords = _SHORTEST + int(draw() * (_LONGEST - _SHORTEST + 1))
    voices = [(low + high) / 2 for low, high in _RANGES]
    chord, frames = 0, []
    for number in range(chords):
        last = number + 1 == chords
        chord = 0 if last else chord
        classes = [(key + _SCALE[degree]) % _KEYS for degree in _CHORDS[chord]]
        below = 0.0
        for voice, (low, high) in enumerate(_RANGES):
            below = _nearest(voices[voice], classes[: 1 if voice == 0 else 3], max(low, int(below) + 1), high)
            voices[voice] = below
        frame = np.zeros(NOTES, np.uint8)
        frame[[int(pitch) - LOWEST for pitch in voices]] = 1
        frames += [frame] * (4 if last else 2 + int(draw() * 3))
        chord = int(np.searchsorted(np.cumsum(_NEXT[chord]), draw() * sum(_NEXT[chord]), side="right"))
        chord = min(chord, len(_CHORDS) - 1)
    return np.stack(frames)


def _nearest(pitch: float, classes: list[int], low: int, high: int) -> float:
    """The note of these pitch classes from low to high that is nearest to where a voice was; the lower of two. There is
    one: between the notes of a chord are four others at most."""
    notes = [note for note in range(low, high + 1) if note % _KEYS in classes]
    return min(notes, key=lambda note: (abs(note - pitch), note))
