"""``--state`` and ``--state-out``: a text in parts on the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Command
from cli.test_score import nats

PARTS = ("the cat sleeps\n", "under the hill\n")


def test_generate_in_parts(unrolled: Command, trained: Path) -> None:
    whole = unrolled("generate", trained, "--prompt", "the ", "--tokens", 60, "--seed", 5).out
    first = unrolled("generate", trained, "--prompt", "the ", "--tokens", 25, "--seed", 5, "--state-out", "a.state").out
    second = unrolled("generate", trained, "--state", "a.state", "--tokens", 35, "--seed", 5).out
    assert first[:-1] + second == whole


def test_score_in_parts(unrolled: Command, trained: Path, tmp_path: Path) -> None:
    for name, text in (("whole", "".join(PARTS)), ("one", PARTS[0]), ("two", PARTS[1])):
        (tmp_path / f"{name}.txt").write_text(text)
    whole = unrolled("score", trained, "whole.txt")
    one = unrolled("score", trained, "one.txt", "--open", "--state-out", "a.state")
    two = unrolled("score", trained, "two.txt", "--state", "a.state", "--out", "two.tsv", "--state-out", "b.state")
    assert nats(one.err) + nats(two.err) == pytest.approx(nats(whole.err), abs=2e-6)
    bits = [line.split("\t")[-1] for line in whole.out.splitlines()[5:]]
    found = [line.split("\t")[-1] for line in (tmp_path / "two.tsv").read_text().splitlines()[1:]]
    assert [float(x) for x in found] == pytest.approx([float(x) for x in bits], abs=2e-6)
    assert (tmp_path / "b.state").stat().st_size > 100


def test_a_state_of_scoring_is_one_for_writing(unrolled: Command, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the cat ")
    assert unrolled("score", trained, "text.txt", "--open", "--state-out", "a.state").code == 0
    went_on = unrolled("generate", trained, "--state", "a.state", "--tokens", 30).out
    assert unrolled("generate", trained, "--prompt", "the cat ", "--tokens", 30).out == "the cat " + went_on


def test_refused(refused: Callable[..., str], unrolled: Command, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the cat\n")
    assert unrolled("generate", trained, "--tokens", 3, "--state-out", "a.state").code == 0
    assert "leave out --samples" in refused("generate", trained, "--samples", 2, "--state-out", "b.state")
    assert "one file" in refused("score", trained, "text.txt", "text.txt", "--state", "a.state")
    assert "beginning of the text" in refused(
        "score", trained, "text.txt", "--state", "a.state", "--boundary", "trailing"
    )
    assert "text left open" in refused("score", trained, "text.txt", "--open", "--boundary", "trailing")
    assert "the model" in refused("score", trained, "text.txt", "--state", "a.state", "--temperature", 2.0)
    for verb in (["generate", trained], ["score", trained, "text.txt"]):
        assert "cannot be kept" in refused(*verb, "--state-out", "b.state", "--predict", "dynamic=sgd")
    assert "no state of a text" in refused("generate", trained, "--state", "text.txt")
    assert "missing.state" in refused("generate", trained, "--state", "missing.state", code=1)
