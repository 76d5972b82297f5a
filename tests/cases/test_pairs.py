"""Minimal pairs: the encodings of their files, and folders of them."""

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cases.material import by_hand
from cli.conftest import Command

PAIRS = [("the cat saw the dog .", "the cat the saw dog ."), ("the dog .", "dog the naïve .")]


def lines(pairs: list[tuple[str, str]] = PAIRS) -> str:
    return "".join(
        json.dumps({"sentence_good": good, "sentence_bad": bad}, ensure_ascii=False) + "\n" for good, bad in pairs
    )


@pytest.fixture
def accuracy(arpa: Path, unrolled: Command) -> Callable[[str], tuple[float, int]]:
    """Accuracy and number of pairs."""

    def of(path: str) -> tuple[float, int]:
        code, out, err = unrolled("pairs", arpa, path, "--prepare", "none", "--json")
        assert code == 0, err
        overall = json.loads(out)["overall"]
        return overall["accuracy"], overall["pairs"]

    return of


SAME = {
    "plain": lines().encode(),
    "mark": b"\xef\xbb\xbf" + lines().encode(),
    "marks of joined files": (lines().replace('{"', '\ufeff{"')).encode(),
    "crlf": lines().replace("\n", "\r\n").encode(),
    "cr": lines().replace("\n", "\r").encode(),
    "blank lines": lines().replace("\n", "\n \t\n\n").encode(),
    "no last line end": lines().rstrip().encode(),
    "escaped": "".join(json.dumps({"sentence_good": g, "sentence_bad": b}) + "\n" for g, b in PAIRS).encode(),
    "gzip": gzip.compress(lines().encode()),
    "bzip2": bz2.compress(lines().encode()),
}


@pytest.mark.parametrize("data", SAME.values(), ids=SAME)
def test_the_same_pairs(data: bytes, accuracy: Callable[[str], tuple[float, int]]) -> None:
    Path("p.jsonl").write_bytes(data)
    won = [sum(by_hand(good)) < sum(by_hand(bad)) for good, bad in PAIRS]
    assert accuracy("p.jsonl") == (sum(won) / len(won), len(won))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
def test_other_encodings(encoding: str, arpa: Path, refused: Callable[..., str]) -> None:
    Path("p.jsonl").write_bytes(lines().encode(encoding))
    said = refused("pairs", arpa, "p.jsonl", code=2)
    if encoding == "latin-1":
        assert said.startswith("p.jsonl is not UTF-8 at byte ")
        assert ", in line 2;" in said
    elif encoding == "utf-16":
        assert said.startswith("p.jsonl is UTF-16")


def test_folders(arpa: Path, unrolled: Command, accuracy: Callable[[str], tuple[float, int]]) -> None:
    """What is no file of pairs is named; compressed ones are."""
    Path("task/sub").mkdir(parents=True)
    Path("task/a.jsonl").write_text(lines())
    Path("task/sub/b.jsonl.gz").write_bytes(gzip.compress(lines().encode()))
    Path("task/README.md").write_text("about\n")
    Path("task/._a.jsonl").write_bytes(b"\0\xff")
    assert accuracy("task")[1] == 4
    err = unrolled("pairs", arpa, "task", "--prepare", "none").err
    assert "note: task: left out 2 of what is there (no files of pairs): ._a.jsonl, README.md" in err
