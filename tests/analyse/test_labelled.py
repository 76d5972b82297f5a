"""Reading labelled sentences."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from unrolled.analyse import Labelled, read_labelled
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data.labelled.reading import find_sst2

CSV = 'label,sentence\n1,"Good, ""really"" good\nover two lines"\n0,bad\n1,plain\n'
TSV = 'label\tsentence\n1\tan "odd quote\n0\tbad\n1\tplain\n'
JSON = '{"label": 1, "sentence": "an é"}\n\n{"label": 0, "sentence": "bad", "more": []}\n{"label": 1, "sentence": ""}\n'


@pytest.mark.parametrize(
    ("name", "content", "first"),
    [("a.csv", CSV, 'Good, "really" good\nover two lines'), ("a.tsv", TSV, 'an "odd quote'), ("a.jsonl", JSON, "an é")],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_kinds(tmp_path: Path, name: str, content: str, first: str, compressed: bool) -> None:
    path = tmp_path / (name + ".gz" * compressed)
    path.write_bytes(gzip.compress(content.encode()) if compressed else content.encode())
    found = read_labelled(path)
    assert found.texts[0] == first
    assert len(found.texts) == 3
    assert found.positive.tolist() == [True, False, True]
    assert found.classes == ("0", "1")


def test_columns_and_classes(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text,mood\nfine,sunny\nso so,rainy\n")
    found = read_labelled(path, "text", "mood")
    assert found.classes == ("rainy", "sunny")
    assert found.positive.tolist() == [True, False]
    assert read_labelled(path, "text", "mood", ("sunny", "rainy")).positive.tolist() == [False, True]
    (tmp_path / "one.csv").write_text("text,mood\nfine,sunny\n")
    assert read_labelled(tmp_path / "one.csv", "text", "mood", ("rainy", "sunny")).positive.tolist() == [True]
    assert found.part(np.array([1])) == Labelled("x.csv", ("so so",), np.array([False]), ("rainy", "sunny"))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", "x", r"is neither \.csv nor \.tsv nor \.jsonl"),
        ("a.csv", "label,text\n1,a\n", "unknown column of .* 'sentence'; known: label, text"),
        ("a.csv", "label,sentence\n1,a\n2,b\n3,c\n", "must have two labels in 'label', and has 3"),
        ("a.csv", "label,sentence\n1,a\n", r"and has 1 \('1'\)"),
        ("a.csv", "label,sentence\n", "has no sentences"),
        ("a.tsv", "label\tsentence\n1\t1\tgood\tx\n", r"line 2 of .* has 4 field\(s\), more than the header \(2\)"),
        ("a.csv", "label,sentence\n1\n", r"line 2 of .* has 1 field\(s\), fewer than the header \(2\)"),
        ("a.jsonl", '{"label": 1}\n', "line 1 of .* has no text 'sentence'"),
        ("a.jsonl", "[1]\n", "line 1 of .* has no text"),
    ],
)
def test_refusals(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=says):
        read_labelled(tmp_path / name)


def test_damage(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{\n")
    with pytest.raises(UnrolledError, match=r"line 1 of .* is not JSON"):
        read_labelled(tmp_path / "a.jsonl")
    (tmp_path / "a.csv").write_text('label,sentence\n1,"open\n')
    with pytest.raises(UnrolledError, match="is no CSV"):
        read_labelled(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes(b"label,sentence\n1,\xff\n")
    with pytest.raises(UsageError, match="not UTF-8 at byte 17"):
        read_labelled(tmp_path / "b.csv")
    with pytest.raises(UsageError, match="there are no sentences at"):
        read_labelled(tmp_path / "none.csv")
    (tmp_path / "c.csv").write_text("label,sentence\n2,a\n")
    with pytest.raises(UsageError, match=r"unknown label in .* '2'; known: 0, 1"):
        read_labelled(tmp_path / "c.csv", classes=("0", "1"))


def test_sst2_is_found_or_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNROLLED_DATA", str(tmp_path))
    with pytest.raises(UsageError, match=r"SST-2 is not on this machine; put train_binary_sent\.csv"):
        find_sst2()
    (tmp_path / "sst2").mkdir()
    for split in ("train", "dev", "test"):
        (tmp_path / "sst2" / f"{split}_binary_sent.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    assert [path.name[:4] for path in find_sst2()] == ["trai", "dev_", "test"]
    assert len(read_labelled(find_sst2()[0]).texts) == 3


def test_the_counts_of_sst2() -> None:
    try:
        paths = find_sst2()
    except UsageError as error:
        pytest.skip(str(error))
    found = [read_labelled(path) for path in paths]
    assert [len(one.texts) for one in found] == [6920, 872, 1821]
    assert [int(one.positive.sum()) for one in found] == [3610, 444, 909]
