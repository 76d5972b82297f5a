"""How a study goes on, and how trials end: diverged, refused, stopped by a signal, failed; and what limits it."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import unrolled as ur
from compare.plans import RECIPE
from tune.spaces import SPACE, begun, search, short, write_space
from unrolled.compare.claims import Claims
from unrolled.compare.tune import Board, Limit, Tuning, work
from unrolled.compare.tune import execute as execute_module
from unrolled.compare.tune.memory import open_memory
from unrolled.compare.tune.report import write_report
from unrolled.core.errors import StoppedError, UnrolledError, UsageError
from unrolled.train import loop


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def longer(text: str) -> str:
    """One whose trials have enough steps for a loss that runs away to be seen, and no rungs."""
    return text.replace("tokens = 480", "tokens = 3000").replace("rungs = [0.25, 0.5]", "rungs = []")


def test_a_study_goes_on(tmp_path: Path, no_fsync: None) -> None:
    board = begun(tmp_path, short())
    assert search(board, 1).done == 2
    assert search(board, 1).done == 0
    outcome = search(board, 2)
    assert outcome.complete
    assert len(Board(board.study).trials()) == 2


def test_divergence_is_pruned_and_never_tried_again(tmp_path: Path, no_fsync: None) -> None:
    recipe = RECIPE.replace('name = "adam"', 'name = "sgd"').replace("steps = 30", "steps = 30\nclip = 0")
    text = short().replace("high = 5e-2", "high = 1e6")
    text = text.replace("random = 3", 'start = [{{ "train.optimizer.lr" = 1e5 }}]')
    board = begun(tmp_path, longer(text), recipe)
    assert search(board, 2).complete
    first, second = Tuning(board.folder).trials
    assert first.status == "finished"
    assert (second.status, second.value) == ("diverged", None)
    told = remembered(board)
    assert told[1] == ("PRUNED", None)
    assert search(board, 2).done == 0


def remembered(board: Board) -> list[tuple[str, float | None]]:
    """State and value of every trial, as the sampler remembers them."""
    return [(one.state.name, one.value) for one in open_memory(board, None)._trials()]


def test_all_diverged(tmp_path: Path, no_fsync: None) -> None:
    recipe = RECIPE.replace('name = "adam", lr = 0.01', 'name = "sgd", lr = 1e5')
    recipe = recipe.replace("steps = 30", "steps = 30\nclip = 0")
    board = begun(tmp_path, longer(short()).replace("high = 5e-2", "high = 1e6"), recipe)
    outcome = search(board, 1)
    assert not outcome.complete
    assert outcome.faults[0].startswith("no trial came to its end; search smaller learning rates")
    with pytest.raises(UsageError, match="is not confirmed yet; go on with: unrolled tune run"):
        Tuning(board.folder).recipe()


def test_settings_that_go_together_with_no_model_are_refused(tmp_path: Path, no_fsync: None) -> None:
    text = short().replace("low = 4, high = 12, integer = true", "values = [8, 400]")
    board = begun(tmp_path, text.replace("random = 3", 'start = [{{ "model.embedding.size" = 400 }}]'))
    assert search(board, 2).complete
    second = Tuning(board.folder).trials[1]
    assert (second.status, second.value, second.parameters) == ("refused", None, None)
    assert "1,500" in second.reason
    assert "Trial 1 was refused: " in write_report(Tuning(board.folder)).read_text()


def test_cpu_seconds_become_tokens_once(tmp_path: Path, no_fsync: None, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[Any] = []

    def times(systems: Any, threads: int, tell: Any) -> dict[str, Any]:
        timed.append(systems)
        return {"seconds_per_token": {"recipe": 0.01}}

    monkeypatch.setattr(execute_module, "time_systems", times)
    board = begun(tmp_path, short(SPACE.replace("tokens = 960", "cpu_seconds = 4.8")))
    assert search(board, 2).complete
    assert len(timed) == 1
    tokens = {board.experiment(board.trial_job(number)).train.tokens for number in (0, 1)}
    assert tokens == {480}


def test_cpu_hours_leave_room_for_the_confirmation(tmp_path: Path, no_fsync: None) -> None:
    board = begun(tmp_path, short())
    search(board, 3)
    each = max(result["cpu_seconds"] for result in board.results().values())
    spent = board.cpu_seconds()
    assert board.more(Limit(cpu_hours=(spent + 20 * each) / 3600))
    assert not board.more(Limit(cpu_hours=(spent + each) / 3600)), "one more could be tried, and not confirmed"
    assert not board.more(Limit(cpu_hours=spent / 3600))
    assert not begun(tmp_path, short(), out="b").more(Limit(cpu_hours=0.0))


def test_a_stop_saves_and_frees_the_trial(tmp_path: Path, no_fsync: None, monkeypatch: pytest.MonkeyPatch) -> None:
    board, steps, original = begun(tmp_path, short()), [0], loop.train_step

    def stopped(*arguments: Any, **options: Any) -> Any:
        steps[0] += 1
        if steps[0] == 4:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments, **options)

    monkeypatch.setattr(loop, "train_step", stopped)
    with pytest.raises(StoppedError):
        search(board, 1)
    assert Claims(board.folder).living() == {}
    assert Tuning(board.folder).trials[0].status == "running"
    monkeypatch.setattr(loop, "train_step", original)
    assert search(board, 1).complete
    other = begun(tmp_path, short(), out="undisturbed")
    search(other, 1)
    assert Tuning(board.folder).trials[0].value == Tuning(other.folder).trials[0].value


def test_a_trial_that_fails_is_parked_and_the_study_goes_on(
    tmp_path: Path, no_fsync: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, original = begun(tmp_path, short()), execute_module.finish

    def full(folder: Path, *rest: Any) -> Any:
        if folder.name == "trial.0001":
            raise UnrolledError(f"no space left while writing {folder}.")
        return original(folder, *rest)

    monkeypatch.setattr(execute_module, "finish", full)
    outcome = search(board, 2)
    assert not outcome.complete
    assert outcome.faults[0].startswith("trial.0001 failed 3 times (no space left while writing")
    assert outcome.faults[0].endswith("--retry.")
    assert Tuning(board.folder).best is not None, "the others were gone on with"
    monkeypatch.setattr(execute_module, "finish", original)
    Claims(board.folder).retry()
    assert search(board, 2).complete


def test_from_python(tmp_path: Path, no_fsync: None) -> None:
    tuning = ur.tune(write_space(tmp_path, short()), tmp_path / "out", trials=2)
    assert len(tuning.trials) == 2
    assert tuning.best is not None
    with pytest.raises(UsageError, match="give trials or CPU hours, not both"):
        ur.tune(tmp_path / "out", trials=2, cpu_hours=1)
    with pytest.raises(UsageError, match="has begun already, with its own settings; leave out --set"):
        ur.tune(tmp_path / "space.toml", tmp_path / "out", settings=["random=4"])


def test_a_missing_extra_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = begun(tmp_path)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UnrolledError, match=r'a search needs optuna; install it with: pip install "unrolled\[tune\]"'):
        work(board.folder, Limit(1))
