"""A whole study: trials, rungs, confirmation, and the recipe that comes out."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import unrolled as ur
from compare.plans import PLAN, RECIPE, registered
from train.runs import events
from tune.spaces import SPACE, begun, search, write_space
from unrolled.compare.claims import Claims
from unrolled.compare.found import found as found_of
from unrolled.compare.jobs import Board as ComparisonBoard
from unrolled.compare.tune import Board, Limit, Tuning, work
from unrolled.compare.tune import execute as execute_module
from unrolled.core.errors import StoppedError, UnrolledError, UsageError
from unrolled.runs import Run
from unrolled.train import loop, resume


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuning]:
    """Eight trials of the tiny space."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNROLLED_CACHE", str(folder / "cache"))
        patch.setattr(os, "fsync", lambda _: None)
        board = begun(folder)
        assert search(board, 8).complete
        yield Tuning(board.folder)


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def short(text: str = SPACE) -> str:
    """A space of which a study takes a second."""
    return text.replace("best = 2, seeds = [11, 12]", "best = 1, seeds = [11]").replace("tokens = 960", "tokens = 480")


def longer(text: str) -> str:
    """One whose trials have enough steps for a loss that runs away to be seen, and no rungs."""
    return text.replace("tokens = 480", "tokens = 3000").replace("rungs = [0.25, 0.5]", "rungs = []")


def test_trials(study: Tuning) -> None:
    assert [one.number for one in study.trials] == list(range(8))
    assert study.trials[0].settings == {
        "train.optimizer.lr": 0.01, "model.embedding.size": 8, "model.dropout.input": 0.0,
    }  # fmt: skip
    counts = {status: sum(one.status == status for one in study.trials) for status in ("finished", "pruned")}
    assert sum(counts.values()) == 8
    assert min(counts.values()) > 0
    assert all(one.parameters is not None and 1200 < one.parameters <= 1500 for one in study.trials)
    assert len({one.settings["model.embedding.size"] for one in study.trials}) > 3, "parameters were matched anew"


def test_pruned_trials_are_equal_in_steps(study: Tuning) -> None:
    """All were judged after as many steps of the same schedule, and were worse than most that came there."""
    pruned = [one for one in study.trials if one.status == "pruned"]
    steps = {one.step for one in pruned}
    # 960 tokens are 20 steps or so; rungs at a quarter and a half of them
    assert steps <= {-(-total * check // 4) for total in (20, 21, 22) for check in (1, 2)}
    for one in pruned:
        result = study.board.result(f"trial.{one.number:04d}")
        assert result is not None
        assert [result["share"] * 4] == [len(result["curve"])]
        there = sorted((study.folder / "rungs" / str(len(result["curve"]))).glob("*.json"))
        noted = [json.loads(path.read_text()) for path in there]
        assert {note["step"] for note in noted} == {one.step}
        assert {note["value"] for note in noted if note["number"] == one.number} == {one.value}
        assert min(note["value"] for note in noted) < (one.value or 0)


def test_a_pruned_trial_can_be_gone_on_with(study: Tuning, tmp_path: Path) -> None:
    """Its training state is whole: it goes on to what an undisturbed run comes to."""
    import shutil

    number = next(one.number for one in study.trials if one.status == "pruned")
    job = study.board.trial_job(number)
    shutil.copytree(study.board.run_folder(job), tmp_path / "gone-on")
    resume(tmp_path / "gone-on", "cpu")
    ur.train(study.board.experiment(job), tmp_path / "undisturbed", "cpu")
    assert events(tmp_path / "gone-on") == events(tmp_path / "undisturbed")
    assert Run(tmp_path / "gone-on", "cpu").record["status"] == "finished"


def test_the_best_is_confirmed_with_new_seeds(study: Tuning) -> None:
    finished = sorted((one.value, one.number) for one in study.trials if one.status == "finished")
    assert {one.number for one in study.confirmed} == {number for _, number in finished[:2]}
    best = study.best
    assert best is not None
    assert list(best.values) == [11, 12]
    assert best.mean == pytest.approx(sum(value or 0 for value in best.values.values()) / 2)
    assert best.mean == min(one.mean for one in study.confirmed)
    assert best.sd > 0


def test_best_toml_trains(study: Tuning, tmp_path: Path) -> None:
    path = study.folder / "best.toml"
    best, lines = study.best, path.read_text().splitlines()
    assert best is not None
    assert lines[0].startswith(f"# study {study.study.name}, ")
    assert lines[1].startswith(f"# trial {best.number} of 8 trials, ")
    assert lines[1].endswith(" CPU hours in all")
    assert f"mean {best.mean:.4f} nats per token" in lines[2]
    assert f"sd {best.sd:.4f}" in lines[2]
    config = ur.experiment(str(path))
    assert config.train.optimizer.lr == best.settings["train.optimizer.lr"]
    assert config == study.config().model_copy(update={"title": config.title})
    run = ur.train(config, tmp_path / "run", "cpu")
    # the confirmation of the first seed, which scored it in one column as this does
    assert Run(run, "cpu").record["valid_exact"] is not None
    value = ur.evaluate(run, split="valid").nats_per_token
    assert value == pytest.approx(best.values[11], abs=1e-9)


def test_a_comparison_shows_what_a_tuned_system_cost(study: Tuning, tmp_path: Path) -> None:
    plan = PLAN.replace('set = ["model.cell.name=gru"]', f'recipe = "{study.folder / "best.toml"}"')
    lock = registered(tmp_path, plan.replace("parameters = 3000", "parameters = 1500"))
    assert "; tuned, 8 trials, 0.00 CPU hours)" in found_of(ComparisonBoard(lock)).described[1]


def test_weights_are_kept_where_they_may_be_used(study: Tuning) -> None:
    for one in study.trials:
        folder = study.board.run_folder(study.board.trial_job(one.number))
        assert (folder / "model.safetensors").exists() == (one.status == "pruned")
    assert all((study.board.run_folder(job) / "model.safetensors").exists() for job in study.board.confirm_jobs())


def test_the_report(study: Tuning) -> None:
    text = study.report().read_text()
    best = study.best
    assert best is not None
    assert f"Trial {best.number} is the best of the confirmed: {best.mean:.4f} nats per token" in text
    assert "which is trial 0; a whole trial is 960 tokens" in text
    rows = [line.split("\t") for line in (study.folder / "trials.tsv").read_text().splitlines()]
    assert len(rows) == 9
    assert {len(row) for row in rows} == {9}
    record = json.loads((study.folder / "record.json").read_text())
    assert record["best"]["number"] == best.number
    assert len(record["trials"]) == 8


def test_more_trials_later_and_from_another_study(study: Tuning, tmp_path: Path) -> None:
    text = short().replace("random = 3", f'start = ["study:{study.folder}"]')
    text = text.replace('"model.dropout.input" = {{ values = [0.0, 0.2] }}', "").replace("high = 5e-2", "high = 2e-2")
    board = begun(tmp_path, text)
    done = sorted((one.value, one.number) for one in study.trials if one.status == "finished")
    others = [study.trials[number].settings for _, number in done[:5]]
    expected = [
        {
            "train.optimizer.lr": one["train.optimizer.lr"] if one["train.optimizer.lr"] <= 2e-2 else 0.01,  # type: ignore[operator]
            "model.embedding.size": one["model.embedding.size"],
        }
        for one in others
    ]
    assert list(board.study.starts[1:]) == [one for one in expected if one != board.study.starts[0]]
    with pytest.raises(UsageError, match="searched none of these settings; leave it out"):
        begun(
            tmp_path,
            text[: text.index("[space]")] + '[space]\n"model.dropout.state" = {{ low = 0, high = 0.5 }}',
            out="b",
        )


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
    from unrolled.compare.tune.memory import open_memory

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
    assert "Trial 1 was refused: " in Tuning(board.folder).report().read_text()


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
    spent = sum(result["cpu_seconds"] for result in board.results().values())
    assert board.more(Limit(cpu_hours=(spent + 3 * each) / 3600))
    assert not board.more(Limit(cpu_hours=spent / 3600))
    assert not begun(tmp_path, short(), out="b").more(Limit(cpu_hours=0.0))


def test_a_stop_saves_and_frees_the_trial(tmp_path: Path, no_fsync: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    board, steps, original = begun(tmp_path, short()), [0], loop.train_step

    def stopped(*arguments: Any) -> Any:
        steps[0] += 1
        if steps[0] == 4:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

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
    assert outcome.faults[0].endswith("--retry")
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
    import sys

    board = begun(tmp_path)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UnrolledError, match=r'a search needs optuna; install it with: pip install "unrolled\[tune\]"'):
        work(board.folder, Limit(1))
