"""The examples run, with few steps, and print and write what they say."""

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unrolled.cells import CELLS

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
Run = Callable[..., str]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))

    def run(name: str, *arguments: str) -> str:
        path = EXAMPLES / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_every_example_is_short_says_what_it_shows_and_is_run_here():
    files = sorted(EXAMPLES.glob("*.py"))
    assert len(files) == 4
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) < 80
        assert text.startswith('"""')
        assert f'example("{path.stem}"' in Path(__file__).read_text(encoding="utf-8")


def test_train_and_score(example: Run):
    told = example("train_and_score", "2", "100")
    assert Path("runs/run-1/model.safetensors").is_file()
    assert re.search(r"^100 tokens, [\d.]+ nats: \d\.\d{3} bits per character$", told, flags=re.M)
    assert re.search(r"^learning as it reads: \d\.\d{3} \(dynamic", told, flags=re.M)
    assert re.search(r"^sample: .The ", told, flags=re.M)


def test_own_cell(example: Run):
    try:
        told = example("own_cell", "2")
    finally:
        CELLS.remove("ugrnn")
    errors = {name: float(error) for name, error in re.findall(r"^(\w+): at most (\S+) from", told, flags=re.M)}
    assert {"generic", "reference"} <= set(errors)
    assert max(errors.values()) < 1e-13
    assert re.search(r"run-1: \d\.\d{3} bits per character after 2 steps", told)


def test_growing(example: Run):
    told = example("growing", "ptb-char-cpu", "64", "stream.columns=64", "train.steps=1000")
    assert re.findall(r"^(\w+): 664,690 parameters on 64 processes, 2,048 tokens a step$", told, flags=re.M) == [
        "ddp", "fsdp",
    ]  # fmt: skip
    assert re.search(r"^  2,048,000 tokens in 0\.00 days$", told, flags=re.M)


def test_surprisal_table(example: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EXAMPLE_STEPS", "2")
    assert re.search(r"^16 words, [\d.]+ bits each: surprisal.tsv$", example("surprisal_table"), flags=re.M)
    first = Path("surprisal.tsv").read_text(encoding="utf-8")
    head, *rows = [line.split("\t") for line in first.splitlines()]
    assert head == ["item", "word", "tokens", "surprisal_bits", "entropy_bits"]
    assert [row[:2] for row in rows] == [
        line.split("\t") for line in Path("stimuli.tsv").read_text(encoding="utf-8").splitlines()[1:]
    ]
    assert all(float(row[3]) > 0 for row in rows)
    assert rows[0] == ["a", *rows[8][1:]]  # each item by itself: the same word at the beginning costs the same
    Path("mine.tsv").write_text("item\tword\n1\tA\n1\tlist\n", encoding="utf-8")
    assert example("surprisal_table", "mine.tsv", "mine-out.tsv", "runs/run-1").startswith("2 words")
