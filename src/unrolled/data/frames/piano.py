"""Piano rolls: which notes sound, step by step."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import parse_json, regular_file
from unrolled.core.packed import BROKEN, open_packed
from unrolled.data.corpora import MissingCorpusError
from unrolled.data.frames.base import FramesConfig, FrameSource, FrameSplit
from unrolled.data.places import corpus_folders

__all__ = ["LOWEST", "NOTES", "Piano", "PianoConfig", "PianoRoll"]

LOWEST, NOTES = 21, 88
"""The lowest key of a piano as a MIDI number, and how many keys there are."""

_FOLDER = "polyphonic-music"
_FILES = {"jsb": "JSB_Chorales", "nottingham": "Nottingham", "muse": "MuseData", "piano-midi": "Piano_midi"}
_SPLITS = ("train", "valid", "test")
_MOST = 64 << 20


class PianoConfig(FramesConfig):
    """Settings of piano rolls."""

    name: Literal["piano"] = "piano"
    corpus: Literal["jsb", "nottingham", "muse", "piano-midi"] = Field(
        default="jsb", description="set of Boulanger-Lewandowski et al. (2012), with its published split"
    )
    path: str | None = Field(
        default=None,
        min_length=1,
        description='a JSON file of your own in its place, also packed: {"train": [...], "valid": [...]}, of each '
        "piece the steps, of each step the MIDI numbers that sound",
    )


class PianoRoll(FrameSource):
    """Frames of 88 bits, one a key; as JSON the MIDI numbers that sound."""

    bits = NOTES

    @property
    def channels(self) -> int:
        """See :class:`FrameSource`."""
        return NOTES

    def told(self, frames: np.ndarray) -> list[Any]:
        """See :meth:`FrameSource.told`; a list of MIDI numbers a step."""
        return [[LOWEST + int(note) for note in np.flatnonzero(frame)] for frame in frames]


class Piano(PianoRoll):
    """Piano rolls from JSON: a file of your own, or the four sets that papers measure on, looked for in the folder
    ``polyphonic-music`` of the data. Pickled files, in which the sets were published, can run code and are not read."""

    Config = PianoConfig
    EXAMPLES = ()

    def _path(self) -> Path:
        if self.config.path is not None:
            return Path(self.config.path)
        name = f"{_FOLDER}/{_FILES[self.config.corpus]}.json"
        for folder in corpus_folders():
            for path in (folder / f"{name}.gz", folder / name):
                if path.is_file():
                    return path
        raise MissingCorpusError(
            f"the piano rolls {self.config.corpus} are not on this machine; put {name}.gz below $UNROLLED_DATA, name a "
            "JSON file of yours as task.frames.path, or take task.frames.name=chorales, which is made here."
        )

    def splits(self) -> dict[str, FrameSplit]:
        """See :class:`FrameSource`. Raises UsageError, or UnrolledError for a damaged file."""
        path = self._path()
        value = _read(path)
        if not isinstance(value, dict) or "train" not in value or not set(value) <= set(_SPLITS):
            raise UsageError(f"{path} is no set of piano rolls; give JSON with train, and perhaps valid and test.")
        return {split: _split(value[split], f"the split {split} of {path}") for split in _SPLITS if split in value}


def _read(path: Path) -> Any:
    path = regular_file(path)
    try:
        with open_packed(path) as file:
            data = file.read(_MOST + 1)
    except BROKEN as error:
        raise UnrolledError(f"{path} is damaged (its compression is broken); fetch it again.") from error
    except OSError as error:
        raise UnrolledError(f"cannot read {path}: {error.strerror or error}.") from error
    if len(data) > _MOST:
        raise UsageError(f"{path} is larger than {_MOST >> 20} MB of JSON; give its frames as .npy files (files).")
    try:
        return parse_json(data)
    except ValueError as error:
        raise UnrolledError(f"{path} is not valid JSON: it is damaged, or of another kind.") from error


def _split(pieces: Any, name: str) -> FrameSplit:
    if not isinstance(pieces, list) or not all(isinstance(piece, list) and piece for piece in pieces):
        raise UsageError(f"{name} is no list of pieces; give of each piece a list of steps.")
    return FrameSplit.of([_piece(piece, name) for piece in pieces], name)


def _piece(steps: list[Any], name: str) -> np.ndarray:
    frames = np.zeros((len(steps), NOTES), np.uint8)
    for frame, notes in zip(frames, steps, strict=True):
        if not isinstance(notes, list) or not all(type(note) is int for note in notes):
            raise UsageError(f"{name} has a step that is no list of MIDI numbers; correct it.")
        if not all(LOWEST <= note < LOWEST + NOTES for note in notes):
            raise UsageError(
                f"{name} has a note outside of the piano's {LOWEST} to {LOWEST + NOTES - 1}; leave it out."
            )
        frame[np.array(notes, np.int64) - LOWEST] = 1
    return frames
