"""Per-token files, probabilities and pairs that are damaged or made to fill the memory: one sentence, little memory."""

import gzip
import hashlib
import io
import json
import os
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.evaluate import PerTokenHeader, PerTokenWriter, compare_files, fit_ensemble, read_pairs, read_per_token


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def per_token(path: Path, ids: list[int], log_prob: list[float]) -> Path:
    """A file whose checksums fit, whatever is in it."""
    header = {"tokens": len(ids), "first_position": 0, "protocol": {}}
    header["ids_sha256"] = hashlib.sha256(np.array(ids, np.int64).tobytes()).hexdigest()
    with PerTokenWriter(path, PerTokenHeader.parse(header)) as writer:
        writer.append(np.array(ids), np.array(log_prob))
    return path


@pytest.mark.parametrize(
    ("ids", "log_prob", "sentence"),
    [
        ([1, 2], [-1.0, float("nan")], "token 2 has the id 2 and the log-probability nan, which no model gives"),
        ([1, 2], [-1.0, 0.5], "token 2 has the id 2 and the log-probability 0.5"),
        ([1, 2], [float("inf"), -1.0], "token 1 has the id 1 and the log-probability inf"),
        ([-1, 2], [-1.0, -1.0], "token 1 has the id -1"),
    ],
)
def test_figures_that_no_model_gives(ids: list[int], log_prob: list[float], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UnrolledError, match=sentence):
        read_per_token(per_token(tmp_path / "a.tsv", ids, log_prob))


def test_a_token_without_probability_cannot_be_mixed(tmp_path: Path) -> None:
    file = per_token(tmp_path / "a.tsv", [1, 2], [-1.0, -np.inf])
    assert read_per_token(file).log_prob[1] == -np.inf
    with pytest.raises(UnrolledError, match="token 2 has the probability zero"):
        compare_files(file, file)


@pytest.mark.parametrize(
    "line", [f"{2**64}\t-1.0", f"{'9' * 5000}\t-1.0", "1\t-1.0\t3", "1", "", "1\t" + "1" * 5000, "1" * (2 << 20)]
)
def test_lines_that_are_none(line: str, tmp_path: Path) -> None:
    file = per_token(tmp_path / "a.tsv", [1, 2], [-1.0, -2.0])
    file.write_text(file.read_text().replace("2\t-2.0", line))
    with pytest.raises(UnrolledError, match=r"damaged per-token file|cut short|checksum"):
        read_per_token(file)


@pytest.mark.parametrize("header", ["[" * 5000, "{" * 5000, '{"a":' * 70, "[]", '{"tokens": 1e999}', "\\", "null"])
def test_headers_that_are_none(header: str, tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(f"# unrolled per-token 1\n# {header}\nid\tlog_prob\n")
    with pytest.raises(UnrolledError, match="damaged per-token file"):
        read_per_token(tmp_path / "a.tsv")


@pytest.mark.parametrize("content", ["one line", "lines", pytest.param("many lines", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["a.tsv.gz", "a.txt.gz"])
def test_a_small_file_that_unpacks_to_much(
    content: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content == "lines":
        monkeypatch.setattr("unrolled.core.bounded._UNSUSPICIOUS", 1 << 18)
    head = per_token(tmp_path / "a.tsv", [1], [-1.0]).read_bytes().split(b"1\t-1.0")[0] if name == "a.tsv.gz" else b""
    piece = (b"1" if content == "one line" else b"1\t-1\n" if name == "a.tsv.gz" else b"0.5\n") * (1 << 20)
    with gzip.open(tmp_path / name, "wb", compresslevel=1) as file:
        file.write(head)
        for _ in range(1 if content == "lines" else 5):
            file.write(piece[: 3 << 18] if content == "lines" else piece)
    before = peak()
    with pytest.raises(UnrolledError, match=r"damaged per-token file|a line is too long|too much text"):
        compare_files(tmp_path / name, tmp_path / name)
    assert peak() - before < 400_000


def npz(path: Path, **arrays: object) -> None:
    np.savez(path, **{name: np.asarray(value) for name, value in arrays.items()})  # type: ignore[arg-type]


def lying(path: Path) -> None:
    """An array that says it has 2^60 numbers."""
    npz(path, a=[0.5])
    with zipfile.ZipFile(path) as archive:
        data = archive.read("a.npy")
    shape = b"(%d,), }" % 2**60
    head = data.replace(b"(1,), }".ljust(len(shape)), shape)
    assert head != data
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", head)


ARCHIVES: dict[str, Callable[[Path], object]] = {
    "words": lambda path: npz(path, a=["x", "y"]),
    "complex": lambda path: npz(path, a=[0.5j]),
    "pickled": lambda path: npz(path, a=np.array([None, {}], object)),
    "scalar": lambda path: npz(path, a=0.5),
    "NaN": lambda path: npz(path, a=[0.5, np.nan]),
    "empty": lambda path: zipfile.ZipFile(path, "w").writestr("a.npy", b""),
    "lying": lying,
    "bomb": lambda path: zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1).writestr(
        "a.npy", bytes(100 << 20)
    ),
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_are_none(name: str, tmp_path: Path) -> None:
    ARCHIVES[name](tmp_path / "valid.npz")
    before = peak()
    with pytest.raises(UnrolledError):
        fit_ensemble([tmp_path])
    assert peak() - before < 200_000


PAIR = {"sentence_good": "a b", "sentence_bad": "b a", "UID": "p", "linguistics_term": "t", "field": "f"}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[" * 100_000, "line 1 of .* is not JSON"),
        ('{"a":' * 70 + "1" + "}" * 70, "line 1 of .* is not JSON"),
        (json.dumps(PAIR) + "\n[1]", "line 2 of .* is not a JSON object"),
        ('{"sentence_good": 1e999}', "is not JSON"),
        ('{"sentence_good": "a", "sentence_good": "b"}', "is not JSON"),
        (
            json.dumps({"k" * 50: "v", "l" * 10**5: 1}),
            "has no sentence 'sentence_good', only k{50}, l{148}[.]{3}; name",
        ),
        (json.dumps({**PAIR, "field": ["x"]}), "has a 'field' that is no text"),
        (json.dumps({**PAIR, "UID": {"x": 1}}), "has a 'UID' that is no text"),
        (json.dumps({**PAIR, "linguistics_term": 3.5}), "has a 'linguistics_term' that is no text"),
        (json.dumps({**PAIR, "sentence_good": "a " * 10**6}), "is longer than a million characters"),
    ],
    ids=lambda value: value[:20],
)
def test_pairs_that_are_none(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    for task in (tmp_path / "a.jsonl", tmp_path):
        with pytest.raises(UnrolledError, match=sentence) as caught:
            read_pairs(task)
        assert len(str(caught.value)) < 600


def locked(path: Path) -> None:
    """An archive whose directory says that its member needs a password."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jsonl", json.dumps(PAIR))
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def test_archives_of_pairs_that_are_none(tmp_path: Path) -> None:
    locked(tmp_path / "locked.zip")
    with pytest.raises(UnrolledError, match=r"locked\.zip is locked by a password; unpack it and give the folder\.$"):
        read_pairs(tmp_path / "locked.zip")
    line = (json.dumps(PAIR) + "\n").encode()
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(3):
            archive.writestr(f"{number}.jsonl", line * ((40 << 20) // len(line)))
    before = peak()
    with pytest.raises(UnrolledError, match=r"holds 125,\d{3},\d{3} bytes, which is too much to be read at once"):
        read_pairs(tmp_path / "bomb.zip")
    assert peak() - before < 100_000
    whole, said = io.BytesIO(), ""
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.jsonl", line * 100)
    draw = np.random.default_rng(1)
    for _ in range(80):
        damaged = bytearray(whole.getvalue())
        for place in draw.integers(0, len(damaged), 3):
            damaged[place] ^= 1 << int(draw.integers(8))
        (tmp_path / "c.zip").write_bytes(damaged)
        try:
            assert len(read_pairs(tmp_path / "c.zip")["p"]) == 100
        except UnrolledError as error:
            said = str(error)
            continue
    assert "\n" not in said


def test_pipes_among_pairs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    for task in (tmp_path, tmp_path / "a.jsonl", Path("/dev/zero")):
        with pytest.raises(UnrolledError, match="it is a pipe or a device, not a file"):
            read_pairs(task)
    (tmp_path / "valid").mkdir()
    os.mkfifo(tmp_path / "valid" / "x.tsv")
    with pytest.raises(UnrolledError, match="it is a pipe or a device"):
        fit_ensemble([tmp_path])
    with pytest.raises(UsageError, match="does not exist"):
        compare_files(tmp_path / "no.tsv", tmp_path / "no.tsv")
