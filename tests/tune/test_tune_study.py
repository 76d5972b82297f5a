"""A whole study: trials, rungs, confirmation, and the recipe that comes out."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import unrolled as ur
from compare.plans import PLAN, registered
from train.runs import events
from tune.spaces import begun, search, short
from unrolled.compare.found import found as found_of
from unrolled.compare.jobs import Board as ComparisonBoard
from unrolled.compare.tune import Tuning
from unrolled.compare.tune.report import write_report
from unrolled.core.errors import UsageError
from unrolled.runs import Run
from unrolled.train import resume


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
    text = study.folder.parent / "text"
    plan = plan.replace("parameters = 3000", "parameters = 1500").replace(
        "[match]", f'corpora = ["{text}"]\nsettings = ["train.validations=2"]\n\n[match]', 1
    )
    lock = registered(tmp_path, plan)
    assert "; tuned, 8 trials, 0.00 CPU hours)" in found_of(ComparisonBoard(lock)).described[1]


def test_weights_are_kept_where_they_may_be_used(study: Tuning) -> None:
    for one in study.trials:
        folder = study.board.run_folder(study.board.trial_job(one.number))
        assert (folder / "model.safetensors").exists() == (one.status == "pruned")
    assert all((study.board.run_folder(job) / "model.safetensors").exists() for job in study.board.confirm_jobs())


def test_the_report(study: Tuning) -> None:
    text = write_report(study).read_text()
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
