"""Labelled rows: what they say, and how they are batched."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data.labelled import LABELLED, LabelledBatches, LabelledSplit, padded
from unrolled.data.labelled.listops import ListOps, ListOpsConfig


def _evaluated(symbols: list[str]) -> int:
    """By a stack, as a reader would."""
    stack: list[list] = []
    for symbol in symbols:
        if symbol.startswith("["):
            stack.append([symbol[1:]])
        elif symbol == "]":
            name, *values = stack.pop()
            ordered = sorted(values)
            value = {
                "max": ordered[-1],
                "min": ordered[0],
                "med": ordered[(len(ordered) - 1) // 2],
                "sum": sum(values) % 10,
                "first": values[0],
            }[name]
            if not stack:
                return value
            stack[-1].append(value)
        else:
            stack[-1].append(int(symbol))
    raise AssertionError("the brackets do not close")


def test_list_operations_have_their_values_and_depths() -> None:
    source = ListOps(ListOpsConfig(rows=300, depth=4))
    splits = source.splits()
    assert [len(part) for part in splits.values()] == [300, 30, 30]
    for part in splits.values():
        for row, label, depth in zip(part.rows, part.labels, part.groups["depth"], strict=True):
            symbols = [source.symbols[number] for number in row]
            assert _evaluated(symbols) == label
            levels = np.cumsum([symbol.startswith("[") - (symbol == "]") for symbol in symbols])
            assert levels.max() == depth <= 4
    assert set(splits["train"].groups["depth"]) == {1, 2, 3, 4}


@pytest.mark.parametrize("name", ["shapes", "directions"])
def test_grids_are_what_they_are_called(name: str) -> None:
    config = LABELLED.parse({"name": name, "rows": 64, "noise": 0.0})
    source, again = (LABELLED[name](config) for _ in range(2))
    splits = source.splits()
    assert splits["train"].checksum == again.splits()["train"].checksum != splits["valid"].checksum
    for row, label in zip(splits["train"].rows, splits["train"].labels, strict=True):
        grid = row.reshape(-1, 8, 8)
        if name == "shapes":
            counts = {"square": 25, "frame": 16, "cross": 9, "diagonal": 9, "bars": 15, "stripes": 15}
            assert grid.sum() == counts[source.classes[label]]
        else:
            assert (grid.sum((1, 2)) == 4).all()
            for before, after in pairwise(grid):
                angle = label * np.pi / 4
                moved = np.roll(before, (round(-np.cos(angle)), round(np.sin(angle))), (0, 1))
                assert np.array_equal(moved, after), source.classes[label]


def test_every_row_comes_once_an_epoch_in_rows_of_similar_length() -> None:
    g = np.random.default_rng(0)
    rows = [np.arange(1, 2 + int(g.integers(1, 60))) for _ in range(203)]
    split = LabelledSplit(rows, np.arange(203))
    batches = LabelledBatches(split, 10, RandomStreams(3))
    assert batches.windows_per_epoch() == 21
    padding, orders = 0, []
    for epoch in range(2):
        seen = []
        for index in range(21):
            window = batches.at(epoch * 21 + index)
            seen += window.targets[:, 0].tolist()
            for row, reset, label in zip(window.inputs, window.reset, window.targets[:, 0], strict=True):  # type: ignore[arg-type]
                assert row[int(reset.int().argmax()) :].tolist() == rows[int(label)].tolist()
                padding += int(reset.int().argmax())
        assert sorted(seen) == list(range(203))
        orders.append(seen)
    assert orders[0] != orders[1]
    assert padding < 0.15 * 2 * sum(map(len, rows))
    assert LabelledBatches(split, 10, RandomStreams(3)).at(25).targets.tolist() == batches.at(25).targets.tolist()


def test_padding_stands_before_a_row() -> None:
    inputs, reset = padded([np.array([3, 4]), np.array([5])], pad=9)
    assert inputs.tolist() == [[3, 4], [9, 5]]
    assert reset.tolist() == [[True, False], [False, True]]


def test_files_of_ones_own(tmp_path: Path) -> None:
    lines = "\n".join(f"text {i},{'abc'[i % 3]}" for i in range(40))
    (tmp_path / "rows.csv").write_text(f"sentence,label\n{lines}\n")
    config = LABELLED.parse({"name": "files", "path": str(tmp_path / "rows.csv")})
    source = LABELLED["files"](config)
    found = source.texts()
    assert source.classes == ("a", "b", "c")
    assert [len(texts) for texts, _ in found.values()] == [36, 4]
    assert found["valid"][0] == ["text 9", "text 19", "text 29", "text 39"]
    (tmp_path / "other.csv").write_text("sentence,label\nx,d\n")
    other = LABELLED["files"](config.model_copy(update={"test": str(tmp_path / "other.csv")}))
    with pytest.raises(UsageError, match="unknown label in the test rows"):
        other.texts()
    with pytest.raises(UsageError, match=r"set task\.data\.path"):
        LABELLED["files"](LABELLED.parse("files")).texts()


def test_empty_rows_are_refused() -> None:
    with pytest.raises(UsageError, match="row 2 of this split is empty"):
        LabelledSplit([np.array([1]), np.array([], np.int64)], np.array([0, 0]))
