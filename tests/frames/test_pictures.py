"""Strips of pictures, and the files that they are."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unrolled.core.errors import UsageError
from unrolled.core.png import grey_png
from unrolled.data.frames import FRAMES, FrameSplit
from unrolled.generate.pictures import Continued, continued, strip
from unrolled.model import LanguageModel
from unrolled.train import ExperimentConfig
from unrolled.train.setup import set_up


def read_png(data: bytes) -> np.ndarray:
    """A picture in shades of grey, by the standard's own terms."""
    assert data[:8] == bytes([137, 80, 78, 71, 13, 10, 26, 10])
    parts, at = {}, 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        parts[kind] = body
        at += 12 + size
    width, height, *rest = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    assert rest == [8, 0, 0, 0, 0]
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any()
    return lines[:, 1:]


def test_a_picture_comes_back() -> None:
    picture = (np.arange(35 * 7) % 256).astype(np.uint8).reshape(35, 7)
    assert np.array_equal(read_png(grey_png(picture)), picture)


def test_a_strip_shows_what_was_given_what_came_and_what_was_made() -> None:
    frames = np.array([[0, 1], [1, 0], [0.5, 1], [0, 0]], np.float32)
    made = np.array([[2, -1], [0.25, np.nan]], np.float32)
    found = strip([Continued(frames[:2], frames[2:], made), Continued(frames[:2], frames[2:3], made[:1])], (1, 2))
    # a point is 48 by 48, a picture 48 by 96; four points lie around each, eight between sequences
    assert found.shape == (4 + 48 + 4 + 48 + 4 + 8 + 4 + 48 + 4 + 48 + 4 - 4, 4 * 100 + 4)
    middle = 4 + 24

    def points(line: int, place: int) -> list[int]:
        return [int(found[line, 4 + 100 * place + 24 + 48 * k]) for k in (0, 1)]

    assert [points(middle, k) for k in range(4)] == [[0, 255], [255, 0], [128, 255], [0, 0]]
    below = middle + 52
    assert [points(below, k) for k in range(4)] == [[255, 255], [255, 255], [255, 0], [64, 0]]
    assert (found[4 : 4 + 100, 201:203] == 96).all(), "a line before what was made"
    assert points(below + 60, 3) == [255, 255], "the second sequence is shorter"


def model_of_squares() -> tuple[Any, LanguageModel]:
    parts = set_up(ExperimentConfig.parse({
        "task": {"name": "frames", "head": {"name": "values"}, "given": 2,
                 "frames": {"name": "squares", "side": 5, "square": 2, "length": 6, "sequences": 40}},
        "model": {"width": 7}, "stream": {"columns": 4, "window": 6}, "train": {"steps": 2},
    }), "cpu")  # fmt: skip
    return parts.task, parts.model.double().eval()  # type: ignore[return-value]


def test_sequences_are_gone_on_with() -> None:
    task, model = model_of_squares()
    split = task.splits["test"]
    found = continued(model, split, 2, 3, 4, seed=1)
    again = continued(model, split, 2, 99, 4, seed=1)
    assert [one.made.shape for one in found] == [(3, 25)] * 4
    assert [one.made.shape for one in again] == [(4, 25)] * 4, "as long as the sequence"
    whole = split.ids(0, len(split)).reshape(4, 6, 25)
    assert {one.given.tobytes() for one in found} == {one[:2].tobytes() for one in whole}, "all of them, each once"
    for one, longer in zip(found, again, strict=True):
        assert np.allclose(one.made, longer.made[:3])
        x = torch.from_numpy(np.concatenate([np.zeros((1, 25)), one.given, one.made[:2]])).unsqueeze(0)
        with torch.no_grad():
            expected = model.head.mean(model(x).raw)[0]  # type: ignore[operator]
        assert np.allclose(expected[2:].numpy(), one.made, atol=1e-5)
    other = continued(model, split, 2, 3, 2, seed=2)
    assert not np.array_equal(other[0].given, found[0].given)
    with pytest.raises(UsageError, match="lower --samples"):
        continued(model, split, 2, 3, 5, seed=1)


def test_files_that_are_pictures(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 6)))
    files = {"name": "files", "train": str(tmp_path / "x.npy")}
    source = FRAMES["files"](FRAMES.parse({**files, "picture": (2, 3)}))
    assert isinstance(source.splits()["train"], FrameSplit)
    assert source.grid == (2, 3)
    with pytest.raises(UsageError, match="no pictures of 2 rows and 2 columns"):
        FRAMES["files"](FRAMES.parse({**files, "picture": (2, 2)})).splits()
