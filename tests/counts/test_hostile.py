"""ARPA files and saved tables that are damaged or made to cost much: one sentence."""

import gzip
import json
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from counts.texts import WORDS, estimate, make_text
from unrolled.core.errors import UnrolledError
from unrolled.core.files import sha256_file
from unrolled.counts import load_ngrams, read_arpa, save_ngrams, write_arpa


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    write_arpa(estimate(make_text(400), order=3), WORDS, tmp_path / "a.arpa")
    return tmp_path / "a.arpa"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ngram 1=", "ngram 1=9"),
        ("ngram 1=", "ngram 1=" + "9" * 30),
        ("ngram 1=", "ngram 1=" + "9" * 5000),
        ("ngram 1=", "ngram 1=-"),
        ("ngram 2=", "ngram 999999999=1\nngram 2="),
        ("\n\\1-grams", "".join(f"ngram {k}=0\n" for k in range(4, 300)) + "\n\\1-grams"),
        ("\\2-grams:\n", "\\2-grams:\nnan\tthe the\t0\n"),
        ("\\2-grams:\n", "\\2-grams:\n0.5\tthe the\t0\n"),
        ("\\2-grams:\n-", "\\2-grams:\n-inf\tthe the\t0\n-"),
        ("\\2-grams:\n-", "\\2-grams:\n-1e999"),
        ("\\2-grams:\n-", "\\2-grams:\n-" + "9" * (2 << 20)),
        ("\\2-grams:\n", "\\2-grams:\n-1\tthe \udcff\t0\n"),
        ("\\end\\", ""),
        ("\\data\\", ""),
    ],
    ids=lambda value: value[:20],
)
def test_arpa(old: str, new: str, arpa: Path) -> None:
    text = arpa.read_text()
    assert old in text
    arpa.write_bytes(text.replace(old, new, 1).encode("utf-8", "surrogateescape"))
    with pytest.raises(UnrolledError) as caught:
        read_arpa(arpa, WORDS)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("unsuspicious", [1 << 18, pytest.param(None, marks=pytest.mark.slow)])
def test_bombs_and_pipes(unsuspicious: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if unsuspicious:
        monkeypatch.setattr("unrolled.core.bounded._UNSUSPICIOUS", unsuspicious)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, piece in enumerate((b"x" * (1 << 20), b"x\n" * (1 << 19))):
        path = tmp_path / f"{number}.arpa.gz"
        with gzip.open(path, "wb", compresslevel=1) as file:
            for _ in range(3 if unsuspicious else 20):
                file.write(piece)
        with pytest.raises(UnrolledError, match="is damaged, or no file in the ARPA format"):
            read_arpa(path, WORDS)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UnrolledError, match="a pipe or a device"):
            read_arpa(path, WORDS)


def _other(tensors: dict[str, np.ndarray], name: str, value: Any) -> None:
    tensors[name] = np.asarray(value)


CHANGES = ("float32", "int32", "bool", "matrix", "scalar", "empty", "NaN", "inf", "turned", "huge")


@pytest.mark.parametrize("name", ["1.keys", "2.keys", "3.keys", "1.log_prob", "2.log_prob", "2.backoff"])
@pytest.mark.parametrize("how", CHANGES)
def test_tables(name: str, how: str, tmp_path: Path) -> None:
    save_ngrams(estimate(make_text(400), order=3), tmp_path)
    tensors = dict(load_file(tmp_path / "ngrams.safetensors"))
    value = tensors[name].copy()
    if how in ("NaN", "inf") and value.dtype == np.int64:
        return
    changed = {
        "float32": lambda: value.astype(np.float32),
        "int32": lambda: value.astype(np.int32),
        "bool": lambda: value.astype(bool),
        "matrix": lambda: value[None],
        "scalar": lambda: value[0],
        "empty": lambda: value[:0],
        "NaN": lambda: np.where(np.arange(len(value)) == 1, np.nan, value),
        "inf": lambda: np.where(np.arange(len(value)) == 1, np.inf, value),
        "turned": lambda: value[::-1] if "keys" in name else value - np.inf,
        "huge": lambda: value + 2**60 if "keys" in name else value + np.inf,
    }[how]()
    save_file({**tensors, name: np.ascontiguousarray(changed)}, tmp_path / "ngrams.safetensors")
    config = json.loads((tmp_path / "ngrams.json").read_text())
    config["tables_sha256"] = sha256_file(tmp_path / "ngrams.safetensors")
    (tmp_path / "ngrams.json").write_text(json.dumps(config))
    with pytest.raises(UnrolledError, match="are damaged; write the model again"):
        load_ngrams(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{"order": 2}, {"order": 4}, {"order": 2**40}, {"vocab_size": 2**40}, {"vocab_size": 1}, {"start_id": 999}],
)
def test_what_the_tables_mean(changes: dict[str, Any], tmp_path: Path) -> None:
    save_ngrams(estimate(make_text(400), order=3), tmp_path)
    config = json.loads((tmp_path / "ngrams.json").read_text())
    (tmp_path / "ngrams.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(UnrolledError):
        load_ngrams(tmp_path)
