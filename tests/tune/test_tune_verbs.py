"""``unrolled tune`` and its verbs."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

import unrolled.cli.tune
from tune.spaces import SPACE, begun, write_space
from unrolled.cli import app
from unrolled.compare.tune import Limit, Tuning, find_space, list_spaces, read_space
from unrolled.compare.tune import worker as worker_module
from unrolled.core.errors import UnrolledError, UsageError

SHORT = SPACE.replace("best = 2, seeds = [11, 12]", "best = 1, seeds = [11]").replace("tokens = 960", "tokens = 240")


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    assert unrolled.cli.tune.verbs


def ran(*words: str) -> str:
    """Standard output of a command that ends well."""
    result = CliRunner().invoke(app, ["tune", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_from_a_space_to_a_recipe(tmp_path: Path) -> None:
    path, out = str(write_space(tmp_path, SHORT)), str(tmp_path / "out")
    said = ran(path, "--out", out, "--trials", "2", "--set", "trial.tokens=200")
    assert "Trial 0 is the best of the confirmed" in said or "Trial 1 is the best of the confirmed" in said
    assert "trials: " in ran("status", out)
    status = json.loads(ran("status", out, "--json"))
    assert (status["confirmed"], status["to_confirm"], sum(status["trials"].values())) == (1, 1, 2)
    assert "report: " in ran("report", out)
    assert json.loads(ran("report", out, "--json"))["kind"] == "unrolled study"
    assert json.loads(ran("best", out, "--json"))["seed"] == 11
    assert ran("best", out) == (tmp_path / "out" / "best.toml").read_text()
    # the same folder, by the verb's full name; one more trial
    assert "2 trials" in ran("run", out, "--trials", "2")


def test_a_wrong_call_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown space 'ptb-char-cp'; did you mean 'ptb-char-cpu'"):
        ran("ptb-char-cp")
    with pytest.raises(UsageError, match="--storage does not take SQLite"):
        ran("ptb-char-cpu", "--storage", "sqlite:///x.db")
    with pytest.raises(UsageError, match="is no study"):
        ran("run", str(tmp_path))
    board = begun(tmp_path, SHORT)
    with pytest.raises(UsageError, match="is not confirmed yet; go on with: unrolled tune run"):
        ran("best", str(board.folder))
    assert "none yet" in ran("status", str(board.folder))
    with pytest.raises(UsageError, match="is a study already; leave out --out"):
        ran(str(board.folder), "--out", str(tmp_path / "other"))


def test_several_workers_are_started_and_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board, given = begun(tmp_path, SHORT), []

    def many(command: list[str], workers: int, threads: int, tell: object) -> int:
        given.append((command, workers, threads))
        worker_module.work(board.folder, Limit(2))
        return 0

    monkeypatch.setattr(worker_module, "work_in_processes", many)
    said = ran(str(board.folder), "--workers", "3", "--trials", "2")
    assert given == [(["tune", "run", str(board.folder), "--device", "auto", "--trials", "2"], 3, 1)]
    assert "is the best of the confirmed" in said


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    board = begun(tmp_path, SHORT)
    assert "is the best of the confirmed" in ran(str(board.folder), "--workers", "2", "--trials", "4")
    assert len(Tuning(board.folder).trials) == 4


def test_faults_end_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = begun(tmp_path, SHORT)

    def full(*_: object) -> None:
        raise UnrolledError("no space left.")

    monkeypatch.setattr(worker_module, "execute", full)
    with pytest.raises(UnrolledError, match=r"trial.0000 failed 3 times \(no space left\); mend that, then: unrolled"):
        ran(str(board.folder), "--trials", "1")
    monkeypatch.undo()
    assert "is the best of the confirmed" in ran(str(board.folder), "--trials", "1", "--retry")


def test_shipped_spaces_fit_their_recipes() -> None:
    from unrolled.compare.tune.settings import check_space, own_settings
    from unrolled.train.recipes import load_experiment

    assert "ptb-char-cpu" in list_spaces()
    for name in list_spaces():
        space = read_space(find_space(name))
        config = load_experiment(space.recipe, [*space.settings, "train.steps=1"]).model_dump(mode="json")
        check_space(space, config)
        assert list(own_settings(space, config)) == list(space.space)
