"""Frames of your own, from arrays or JSON."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import read_json, regular_file
from unrolled.core.graph import Graph
from unrolled.data.frames.base import FramesConfig, FrameSource, FrameSplit

__all__ = ["Files", "FilesConfig"]

_MOST_JSON = 64 << 20
_MOST_CHANNELS = 1 << 16


class FilesConfig(FramesConfig):
    """Settings of frames of your own."""

    name: Literal["files"] = "files"
    train: str = Field(
        default="train.npy",
        min_length=1,
        description="an array (frames, channels) as .npy, which is read in parts as it is needed, or a .json list of "
        "sequences, each a list of frames, each a list of numbers",
    )
    valid: str | None = Field(default=None, min_length=1, description="the same, of validation (absent: none)")
    test: str | None = Field(default=None, min_length=1, description="the same, of test (absent: none)")
    picture: tuple[int, int] | None = Field(
        default=None, description="rows and columns of a frame that is a picture, row after row (absent: it is none)"
    )
    graph: str | None = Field(
        default=None,
        min_length=1,
        description="weights between the nodes that frames are of, as .npy (nodes, nodes), symmetric, for cells that "
        "want a graph; a frame has as many numbers, or a multiple, feature after feature (absent: none)",
    )
    bits: int = Field(default=0, ge=0, le=_MOST_CHANNELS, description="so many of the last channels are 0 or 1")


class Files(FrameSource):
    """Sequences of frames from files. An array is one sequence, unless a second array lies beside it, such as
    ``train.starts.npy`` beside ``train.npy``: whole numbers, the positions at which sequences begin. Arrays of Python
    objects, which are pickles and can run code, are refused."""

    Config = FilesConfig
    EXAMPLES = ()
    config: FilesConfig

    def __init__(self, config: FilesConfig):
        super().__init__(config)
        self.bits = config.bits

    @property
    def grid(self) -> tuple[int, int] | None:
        """See :class:`FrameSource`."""
        return self.config.picture

    @property
    def graph(self) -> Graph | None:
        """See :class:`FrameSource`."""
        path = self.config.graph
        return None if path is None else Graph.of(np.asarray(_array(Path(path))), path)

    def splits(self) -> dict[str, FrameSplit]:
        """See :class:`FrameSource`. Every file is read through once, to see that its numbers can be used."""
        paths = {"train": self.config.train, "valid": self.config.valid, "test": self.config.test}
        found = {split: _open(Path(path)) for split, path in paths.items() if path is not None}
        for split in found.values():
            if split.channels != found["train"].channels:
                raise UsageError(
                    f"{split.name} has {split.channels} channels and {found['train'].name} {found['train'].channels}; "
                    "give all as many."
                )
            if split.channels < self.bits:
                raise UsageError(
                    f"{split.name} has {split.channels} channels, fewer than bits = {self.bits}; lower it."
                )
            rows, columns = self.config.picture or (1, split.channels)
            if rows < 1 or rows * columns != split.channels:
                raise UsageError(
                    f"frames of {split.channels} channels are no pictures of {rows} rows and {columns} columns; "
                    "correct picture."
                )
            split.check(self.bits)
        return found


def _open(path: Path) -> FrameSplit:
    if path.suffix == ".npy":
        values = _array(path)
        beside = path.with_suffix(".starts.npy")
        starts = _array(beside) if beside.exists() else np.zeros(1, np.int64)
        if starts.ndim != 1 or starts.dtype.kind not in "iu":
            raise UsageError(f"{beside} is no list of whole numbers; give the positions at which sequences begin.")
        if values.ndim != 2 or values.dtype.kind not in "fiub" or values.shape[1] > _MOST_CHANNELS:
            raise UsageError(f"{path} is no array of numbers (frames, channels); save it in that shape.")
        return FrameSplit(values, starts, str(path))
    if path.suffix != ".json":
        raise UsageError(f"{path} is neither .npy nor .json; save its frames as one of these.")
    value: Any = read_json(path, _MOST_JSON)
    wrong = UsageError(f"{path} is no list of sequences of frames of equally many numbers; correct it.")
    if not isinstance(value, list) or not all(isinstance(one, list) and one for one in value):
        raise wrong
    try:
        with np.errstate(over="ignore"):  # infinite, which is refused in the check
            sequences = [np.array(one, np.float32) for one in value]
    except (ValueError, TypeError, OverflowError) as error:
        raise wrong from error
    if not sequences or {one.shape[1:] for one in sequences} != {sequences[0].shape[1:]} or sequences[0].ndim != 2:
        raise wrong
    return FrameSplit.of(sequences, str(path))


def _array(path: Path) -> np.ndarray:
    """An array mapped into memory. Raises UnrolledError where it is none, or is of Python objects."""
    path = regular_file(path)
    try:
        return np.lib.format.open_memmap(path, "r")
    except Exception as error:  # a damaged header fails in many ways, in numpy and in the tokenizer of Python
        raise UnrolledError(f"{path} is no .npy array of numbers: it is damaged, or of another kind.") from error
