"""Synthetic problems by the command: training, points, and the verbs that read symbols."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Command
from cli.test_tasks import _set

SETTINGS = (
    "task.problem={name='copy', vocab=3, length=[2, 4]}", "task.rows=4", "task.valid_rows=12", "model.width=8",
    "train.steps=6", "train.validations=2", "train.threads=1",
)  # fmt: skip


@pytest.fixture
def run(unrolled: Command) -> Path:
    code, out, err = unrolled("train", "made", *_set(*SETTINGS), "--out", "run")
    assert code == 0, err
    assert "sample" not in out
    return Path("run")


def test_train_and_measure(unrolled: Command, run: Path) -> None:
    record = json.loads((run / "record.json").read_text())
    assert (record["task"], record["status"], record["problem"]["name"]) == ("made", "finished", "copy")
    found = json.loads(unrolled("eval", run, "--split", "valid", "--json").out)
    assert found["figures"] == record["valid_exact"]["figures"]
    assert unrolled("eval", run).out.startswith("\tmade test\n")
    limited = json.loads(unrolled("eval", run, "--limit", "5", "--json").out)
    assert limited["counts"]["rows"] == 5


def test_points(unrolled: Command, run: Path) -> None:
    arguments = ("eval", run, "--points", "length=3,9", "--points", "form=forward,twice", "--rows", 20)
    found = json.loads(unrolled(*arguments, "--json", "--out", "points.json").out)
    assert found == json.loads(Path("points.json").read_text())
    assert [one["point"] for one in found["points"]] == [
        {"length": length, "form": form} for length in (3, 9) for form in ("forward", "twice")
    ]
    assert [one["positions"] for one in found["points"]] == [60, 120, 180, 360]
    assert set(found["points"][0]["groups"]["index"]) == {"0", "1", "2"}
    lines = unrolled(*arguments).out.splitlines()
    assert lines[0].split("\t") == ["copy", "rows", "accuracy", "rows all right", "nats"]
    assert lines[2].startswith("length 3, form twice\t20\t")
    lines = unrolled("eval", run, "--points", "length=3", "--rows", 20).out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["copy", "length 3", "index", "0", "1", "2"]
    forced, free = (json.loads(unrolled("eval", run, "--json", *more).out) for more in (["--rows", 30], ["--free"]))
    assert [len(one["points"]) for one in (forced, free)] == [1, 1]
    assert free["points"][0]["rows"] == 1000


def test_points_that_there_are_not(refused: Callable[..., str], run: Path) -> None:
    assert "has no setting 'lenth'" in refused("eval", run, "--points", "lenth=3")
    assert "needs the form name=value" in refused("eval", run, "--points", "length")
    assert "needs the form name=value" in refused("eval", run, "--points", "length=3", "--points", "length=4")
    assert "changes the symbols" in refused("eval", run, "--points", "vocab=9")
    assert "leave out --columns" in refused("eval", run, "--points", "length=3", "--columns", 2)
    assert "reads no corpus; leave out --corpus" in refused("eval", run, "--corpus", "pydoc")
    assert "unknown split 'tests'" in refused("eval", run, "--split", "tests")
    assert "unknown split 'tests'" in refused("eval", run, "--rows", 3, "--split", "tests")


def test_free_running_needs_answers_that_are_read(unrolled: Command, refused: Callable[..., str]) -> None:
    assert unrolled("train", "made", *_set(*SETTINGS[1:]), "--out", "parity").code == 0
    assert "the answers of group are not among its inputs" in refused("eval", "parity", "--free")


def test_points_are_for_synthetic_problems(unrolled: Command, refused: Callable[..., str], text: Path) -> None:
    settings = _set("train.steps=3", "train.validations=1", "model.width=8", "stream={columns=4, window=12}")
    assert unrolled("train", "--corpus", text, *settings, "--out", "lm").code == 0
    assert "are for runs of the task made" in refused("eval", "lm", "--points", "length=3")


def test_verbs_that_read_symbols(unrolled: Command, refused: Callable[..., str], run: Path) -> None:
    assert unrolled("generate", run, "--prompt", "s0 s1 =", "--tokens", 3, "--seed", 1).out.startswith("s0 s1 = ")
    Path("row.txt").write_text("s0 s1 = s0 s1")
    scored = unrolled("score", run, "row.txt").out.splitlines()
    assert len(scored) >= 5
    assert unrolled("inspect", "trace", run, "row.txt", "--out", "trace.npz").code == 0
    Path("rows.txt").write_text("s0 s1 = s0 s1\ns2 = s2\n")
    assert unrolled("compress", run, "rows.txt", "--out", "rows.unr").code == 0
    assert unrolled("decompress", run, "rows.unr", "--out", "again.txt").code == 0
    assert Path("again.txt").read_text() == Path("rows.txt").read_text()
    assert unrolled("score", run, "rows.txt", "--unit", "token", "--reset", "line").code == 0
    Path("row.txt").write_text("s0 s7")
    code, _, err = unrolled("score", run, "row.txt")
    assert code == 2
    assert "unknown symbol 's7'; did you mean" in err
    assert "learned from no text" in refused("inspect", "length", run)


def test_another_recipe(unrolled: Command, refused: Callable[..., str], text: Path) -> None:
    arguments = ("train", "ptb-char-cpu", *_set("task.name=made", "task.problem.name=mqar"))
    code, out, err = unrolled(*arguments, "--dry-run", "--json")
    assert code == 0
    assert "corpus are left out" in err
    assert json.loads(out)["parameters"] > 0
    assert "has no settings corpus" in refused(*arguments, "--corpus", text, "--dry-run")
    assert "problem" in refused("train", "made", *_set("task.problem.name=mqr"), "--dry-run")
