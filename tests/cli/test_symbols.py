"""``unrolled generate --by-symbol`` and ``unrolled score --symbols`` on a run of subwords."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Command
from train.runs import experiment
from unrolled.train import train

WORDS = "the green cat sl"


@pytest.fixture
def run(text: Path) -> Path:
    return train(experiment(text, tokenizer={"name": "bpe", "size": 300}, train={"steps": 12}), "run", "cpu")


def test_generate_goes_on_within_a_token(unrolled: Command, run: Path) -> None:
    code, out, err = unrolled("generate", run, "-p", WORDS, "-n", 12, "--by-symbol", "--json", "--samples", 2)
    assert code == 0, err
    for one in json.loads(out):
        assert len(one["text"].encode()) == 12
        assert one["tokens"] == list(one["text"].encode())
    greedy = ["generate", run, "-p", WORDS, "-n", 6, "--temperature", 0]
    assert unrolled(*greedy, "--by-symbol", "--predict", "cache=5").code == 0
    code, out, err = unrolled(*greedy, "--by-symbol", "--log-probs", 2)
    assert code == 0, err
    assert len(out.splitlines()) == 7


def test_score_gives_the_exact_chance_of_a_text(unrolled: Command, run: Path) -> None:
    Path("t.txt").write_text("the green cat\nhill\n")

    def nats(*more: object) -> tuple[list[dict], float]:
        code, out, err = unrolled("score", run, "t.txt", "--json", "--dtype", "float64", *more)
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()], float(err.split(": ")[-1].split(" nats")[0])

    rows, exact = nats("--symbols")
    assert len(rows) == len("the green cat\nhill\n") + 1  # and the end of the document
    assert sum(row["surprisal_bits"] for row in rows) * math.log(2) == pytest.approx(exact, abs=1e-4)
    _, tokens = nats()
    assert 0 < exact < tokens  # invalid tokens are left out, and the ends agree
    words, again = nats("--symbols", "--unit", "word", "--entropy")
    assert again == pytest.approx(exact, abs=1e-9)
    assert [row["word"] for row in words][:5] == ["the", "green", "cat", "\n", "hill"]


def test_what_is_refused(refused: Callable[..., str], run: Path, trained: Path) -> None:
    Path("t.txt").write_text("the cat\n")
    assert "symbols already" in refused("score", trained, "t.txt", "--symbols")
    assert "symbols already" in refused("generate", trained, "--by-symbol")
    assert "leave out that setting" in refused("score", run, "t.txt", "--symbols", "--dynamic", "krause")
    for more in (("--beams", 2), ("--search", 2), ("--draft", run), ("--guidance", 0.5), ("--amateur", run),
                 ("--state-out", "s")):  # fmt: skip
        assert "--by-symbol draws bytes" in refused("generate", run, "--by-symbol", *more)
    assert "leave out --symbols" in refused("score", run, "t.txt", "--symbols", "--state-out", "s")
