"""``unrolled score --set-of``, and the adapter in the other verbs, on a run of attention."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Command
from train.runs import experiment
from unrolled.train import train


@pytest.fixture
def run(text: Path) -> Path:
    cell = {"name": "transformer", "heads": 2, "context": 120}
    config = experiment(text, model={"width": 8, "layers": 2, "cell": cell, "compute": {}}, train={"steps": 6})
    return train(config, "run", "cpu")


def test_the_order_does_not_matter(unrolled: Command, run: Path) -> None:
    Path("t.txt").write_text("the green cat sleeps\n")

    def bits(*more: str) -> list[float]:
        code, out, err = unrolled("score", run, "t.txt", "--json", *more)
        assert code == 0, err
        return [json.loads(line)["surprisal_bits"] for line in out.splitlines()]

    one, other = (
        bits("--set-of", "the dog runs", "--set-of", "hill"),
        bits("--set-of", "hill", "--set-of", "the dog runs"),
    )
    assert one == pytest.approx(other, abs=1e-5)
    assert bits() != pytest.approx(one, abs=1e-5)
    assert bits("--set-of", "hill") != pytest.approx(one, abs=1e-5)


def test_the_other_verbs(unrolled: Command, run: Path) -> None:
    on = ["--predict", "sets", "--set", 'sets.parts=["hill", "the dog"]', "--set", 'sets.prefix="cat "']
    code, out, err = unrolled("eval", run, *on, "--limit", 40, "--json")
    assert code == 0, err
    assert json.loads(out)["protocol"]["options"] == {"sets": {"parts": ["hill", "the dog"], "prefix": "cat "}}
    code, out, err = unrolled("generate", run, *on, "--prompt", "the", "--tokens", 5, "--json")
    assert code == 0, err
    Path("t.txt").write_text("the green cat\n")
    assert unrolled("compress", run, "t.txt", "--lanes", 1, *on).code == 0
    assert unrolled("decompress", run, "t.txt.unr", "--out", "b.txt").code == 0
    assert Path("b.txt").read_bytes() == Path("t.txt").read_bytes()


def test_what_is_refused(refused: Callable[..., str], trained: Path, run: Path) -> None:
    Path("t.txt").write_text("the green cat sleeps\n")
    assert "lstm depends on the order" in refused("score", trained, "t.txt", "--set-of", "hill")
    assert "leaves 117 tokens" in refused("eval", run, "--predict", "sets", "--set", 'sets.parts=["c"]', "--limit", 400)
