"""Sequences of frames, their windows and rows, and the kinds that there are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.random import RandomStreams
from unrolled.data import MissingCorpusError, StreamConfig
from unrolled.data.frames import FRAMES, FrameSplit, FrameStream, frame_rows
from unrolled.data.frames.strokes import LETTERS

SIZES, CHANNELS = (3, 1, 7, 4, 12, 5), 2


def sequences() -> list[np.ndarray]:
    """Frames that all differ."""
    counted, found = 0, []
    for size in SIZES:
        found.append(np.arange(counted, counted + size * CHANNELS, dtype=np.float64).reshape(size, CHANNELS) + 1)
        counted += size * CHANNELS
    return found


def shifted(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The plain form: the frame before each one, and where sequences begin."""
    before = np.concatenate([np.concatenate([np.zeros((1, CHANNELS)), one[:-1]]) for one in parts])
    begins = np.concatenate([np.arange(len(one)) == 0 for one in parts])
    return before, begins


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("window", [1, 4, 100])
def test_windows_are_shifted_frames(columns: int, window: int) -> None:
    parts = sequences()
    targets, (before, begins) = np.concatenate(parts), shifted(parts)
    length = len(targets) // columns
    config = StreamConfig(columns=columns, window=min(window, length))
    stream = FrameStream(FrameSplit.of(parts), config, RandomStreams(1))
    windows = [stream.at(k) for k in range(stream.windows_per_epoch())]
    for name, wanted in (("inputs", before), ("targets", targets), ("reset", begins)):
        found = torch.cat([getattr(one, name) for one in windows], 1).numpy()
        assert np.array_equal(found, np.stack([wanted[b * length : (b + 1) * length] for b in range(columns)]))
    assert windows[0].inputs.dtype == windows[0].targets.dtype == torch.float32
    assert all(bool((one.weight == 1).all()) and one.weight.shape == one.inputs.shape[:2] for one in windows)  # type: ignore[union-attr]
    assert stream.tokens_per_epoch() == length * columns


def test_any_window_is_made_from_its_number(tmp_path: Path) -> None:
    """Also from an array on disk, in a new order each epoch, and of some columns alone."""
    parts = sequences()
    np.save(tmp_path / "x.npy", np.concatenate(parts).astype(np.float32))
    mapped = FrameSplit(np.load(tmp_path / "x.npy", mmap_mode="r"), FrameSplit.of(parts).starts)
    assert mapped.checksum == FrameSplit.of(parts).checksum
    config = StreamConfig(columns=4, window=3, order="shuffled")
    first, again = (FrameStream(split, config, RandomStreams(5)) for split in (FrameSplit.of(parts), mapped))
    seen = [first.at(k) for k in range(9)]
    own = FrameStream(mapped, config, RandomStreams(5), range(1, 3))
    for k in (7, 2, 8, 0):
        for a, b in zip(seen[k][:4], again.at(k)[:4], strict=True):
            assert torch.equal(a, b)  # type: ignore[arg-type]
        assert torch.equal(own.at(k).targets, seen[k].targets[1:3])
    assert not torch.equal(seen[0].targets, seen[first.windows_per_epoch()].targets), "each epoch has its order"
    with pytest.raises(UsageError, match="are more than the text's 32 frames"):
        FrameStream(mapped, StreamConfig(columns=33), RandomStreams(1))
    with pytest.raises(UsageError, match="frames have no lines"):
        FrameStream(mapped, StreamConfig(align="line"), RandomStreams(1))


@pytest.mark.parametrize("batch", [1, 4, 99])
@pytest.mark.parametrize("window", [1, 5, 256])
def test_rows_hold_every_sequence_once(batch: int, window: int) -> None:
    parts = sequences()
    held: list[list[Any]] = []
    open_rows: list[list[Any]] = []
    for found in frame_rows(FrameSplit.of(parts), batch, window):
        assert found.inputs.shape[1] <= window
        if found.first:
            open_rows = [[] for _ in range(len(found.inputs))]
            held += open_rows
        for row, inputs, targets, weight in zip(open_rows, found.inputs, found.targets, found.weight, strict=True):
            row += [(i, t) for i, t, w in zip(inputs.tolist(), targets.tolist(), weight.tolist(), strict=True) if w]
    wanted = sorted(parts, key=len)
    assert len(held) == len(wanted)
    for row, one in zip(held, wanted, strict=True):
        assert [t for _, t in row] == one.tolist()
        assert [i for i, _ in row] == [[0.0] * CHANNELS, *one[:-1].tolist()]


def test_splits() -> None:
    split = FrameSplit.of(sequences())
    assert split.lengths().tolist() == list(SIZES)
    assert split.beginning(None) is split
    assert split.beginning(10**6) is split
    begun = split.beginning(5)
    assert (len(begun), begun.lengths().tolist()) == (5, [3, 1, 1])
    mean, deviation = split.moments(2)
    whole = np.concatenate(sequences())
    assert np.allclose(mean, whole.mean(0), rtol=1e-12)
    assert np.allclose(deviation, whole.std(0), rtol=1e-6)
    assert split.checksum != split.beginning(5).checksum
    for values, starts in ((np.zeros((0, 2)), [0]), (np.zeros(3), [0])):
        with pytest.raises(UsageError, match="has no frames"):
            FrameSplit(values, starts)
    for starts in ([], [1], [0, 2, 2], [0, 3]):
        with pytest.raises(UsageError, match="do not ascend from 0"):
            FrameSplit(np.zeros((3, 2)), starts)
    with pytest.raises(UsageError, match="an empty sequence"):
        FrameSplit.of([np.zeros((2, 1)), np.zeros((0, 1))])


def test_chorales_have_four_voices() -> None:
    source = FRAMES["chorales"](FRAMES.parse({"name": "chorales", "pieces": 30, "held": 5}))
    splits = source.splits()
    assert {name: len(split.starts) for name, split in splits.items()} == {"train": 30, "valid": 5, "test": 5}
    frames = splits["train"].ids(0, len(splits["train"]))
    assert set(np.unique(frames)) == {0, 1}
    assert set(frames.sum(1)) == {4}
    again = FRAMES["chorales"](FRAMES.parse({"name": "chorales", "pieces": 30, "held": 5, "seed": 2})).splits()
    assert again["train"].checksum != splits["train"].checksum != splits["valid"].checksum
    assert source.splits()["test"].checksum == splits["test"].checksum
    assert all(21 <= note <= 108 for notes in source.told(frames) for note in notes)
    for notes in source.told(frames):
        assert all(
            low <= note <= high for note, low, high in zip(notes, (43, 50, 57, 62), (59, 66, 74, 79), strict=True)
        )


def test_strokes_are_letters() -> None:
    plain = {"name": "strokes", "lines": 40, "held": 3, "letters": 4}
    source: Any = FRAMES["strokes"](FRAMES.parse(plain))
    splits, texts = source.splits(), source.texts()
    assert {name: len(split.starts) for name, split in splits.items()} == {"train": 40, "valid": 3, "test": 3}
    assert {len(text) for text in texts["train"]} == {2, 3, 4}
    assert set("".join(texts["train"])) == set(LETTERS)
    train = splits["train"]
    for text, start, size in zip(texts["train"], train.starts, train.lengths(), strict=True):
        line = train.ids(int(start), int(start + size))
        assert line[:, 2].sum() == len(text), "the pen is lifted once a letter"
        assert line[-1, 2] == 1
        assert not line[0, :2].any()
    quiet: Any = FRAMES["strokes"](FRAMES.parse({**plain, "noise": 0.0}))
    near = quiet.splits()["train"]
    assert 0 < np.abs(near.ids(0, 50) - train.ids(0, 50)).max() < 0.3


def test_files_of_your_own(tmp_path: Path) -> None:
    parts = sequences()
    np.save(tmp_path / "a.npy", np.concatenate(parts))
    np.save(tmp_path / "a.starts.npy", FrameSplit.of(parts).starts)
    (tmp_path / "b.json").write_text(json.dumps([one.tolist() for one in parts]))
    config = {"name": "files", "train": str(tmp_path / "a.npy"), "test": str(tmp_path / "b.json")}
    found = FRAMES["files"](FRAMES.parse(config)).splits()
    assert set(found) == {"train", "test"}
    assert found["train"].checksum == found["test"].checksum == FrameSplit.of(parts).checksum
    (tmp_path / "a.starts.npy").unlink()
    assert FRAMES["files"](FRAMES.parse(config)).splits()["train"].starts.tolist() == [0]


def test_files_that_are_refused(tmp_path: Path) -> None:
    def refused(train: Any, says: str, bits: int = 0, error: type[Exception] = UsageError, **others: Any) -> None:
        path = tmp_path / "x.npy"
        if isinstance(train, str):
            path = path.with_suffix(".json")
            path.write_text(train)
        else:
            np.save(path, train, allow_pickle=True)
        config = {"name": "files", "train": str(path), "bits": bits, **others}
        with pytest.raises(error, match=says):
            FRAMES["files"](FRAMES.parse(config)).splits()

    refused(np.array([[{"a": 1}]], dtype=object), "no .npy array of numbers", error=UnrolledError)
    refused(np.zeros(4), r"no array of numbers \(frames, channels\)")
    refused(np.array([["a"]]), "no array of numbers")
    refused(np.array([[0.0, np.nan]]), "not finite")
    refused(np.array([[0.0, 1e300]]), "not finite in float32")
    refused("[[[0.0, 1e300]]]", "not finite in float32")
    refused(np.array([[0.0, 0.5]]), "neither 0 nor 1", bits=1)
    refused(np.zeros((4, 2)), "fewer than bits = 3", bits=3)
    for text in ("{}", "[]", "[[]]", "[[[1], [2, 3]]]", "[[[1]], [[2, 3]]]", '[[["a"]]]', "[[1]]"):
        refused(text, "no list of sequences")
    refused("[[[1", "not valid JSON", error=UnrolledError)
    np.save(tmp_path / "other.npy", np.zeros((4, 3)))
    refused(np.zeros((4, 2)), "has 3 channels and .* 2; give all as many", valid=str(tmp_path / "other.npy"))
    refused(np.zeros((4, 2)), "neither .npy nor .json", valid=str(tmp_path / "other.pickle"))
    refused(np.zeros((4, 2)), "does not exist", error=UnrolledError, valid=str(tmp_path / "absent.npy"))
    np.save(tmp_path / "x.starts.npy", np.zeros(2))
    refused(np.zeros((4, 2)), "no list of whole numbers")


def test_piano_rolls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "songs.json"
    value = {"train": [[[60, 64], []], [[21, 108]]], "valid": [[[60]]]}
    path.write_text(json.dumps(value))
    source = FRAMES["piano"](FRAMES.parse({"name": "piano", "path": str(path)}))
    found = source.splits()
    assert {name: split.lengths().tolist() for name, split in found.items()} == {"train": [2, 1], "valid": [1]}
    assert source.told(found["train"].ids(0, 3)) == [[60, 64], [], [21, 108]]
    for wrong, says in (
        ([], "no set of piano rolls"),
        ({"valid": []}, "no set of piano rolls"),
        ({"train": [[]]}, "no list of pieces"),
        ({"train": [[["a"]]]}, "no list of MIDI numbers"),
        ({"train": [[[60.0]]]}, "no list of MIDI numbers"),
        ({"train": [[[20]]]}, "outside of the piano's 21 to 108"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(UsageError, match=says):
            source.splits()
    path.write_bytes(b"\x1f\x8b\x08 broken")
    with pytest.raises(UnrolledError, match="is damaged"):
        source.splits()
    for name in ("UNROLLED_DATA", "UNROLLED_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(MissingCorpusError, match="piano rolls jsb are not on this machine"):
        FRAMES["piano"](FRAMES.parse("piano")).splits()
