"""Workers: the same results whoever does what, whatever dies; signals, failures, zombies; the test split stays shut."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from compare.plans import PLAN, RECIPE, registered, write_plan
from compare.working import work_with_kills
from unrolled.compare import Board, found, open_lock, register, work
from unrolled.compare import execute as execute_module
from unrolled.compare import running as running_module
from unrolled.compare.claims import Claims
from unrolled.compare.report import write_report
from unrolled.compare.test_split import score_all
from unrolled.core.errors import StoppedError, UnrolledError, UsageError
from unrolled.data.reading import Part
from unrolled.train import loop

SMALL = PLAN.replace("values = [0.005, 0.01, 0.02]", "values = [0.01, 0.02]").replace(
    "parameters = 3000", "parameters = 1500"
)


def results(folder: Path) -> bytes:
    """The table of all runs, which holds nothing that a clock decides."""
    write_report(found(Board(open_lock(folder))), folder)
    return (folder / "results.tsv").read_bytes()


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.slow
def test_two_workers_of_whom_one_is_killed_twenty_times(tmp_path: Path, no_fsync: None) -> None:
    longer = SMALL.replace("tokens = 300", "tokens = 20000").replace("tokens = 700", "tokens = 40000")
    path = write_plan(tmp_path, longer.replace("seeds = [1, 2]", "seeds = [1, 2, 3, 4]"))
    register(path, tmp_path / "alone")
    assert work(tmp_path / "alone", wait=0.05).complete
    register(path, tmp_path / "killed")
    assert work_with_kills(tmp_path / "killed", workers=2, kills=20, seed=5) == 20
    assert results(tmp_path / "killed") == results(tmp_path / "alone")
    assert Claims(tmp_path / "killed").failures() == {}


def test_a_whole_comparison(tmp_path: Path, no_fsync: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No byte of the test split is read."""
    read: list[str] = []
    chunks = Part.chunks

    def watched(part: Part) -> Any:
        read.append(Path(part.name).name)
        assert Path(part.name).name != "test.txt", "the test split was opened"
        return chunks(part)

    monkeypatch.setattr(Part, "chunks", watched)
    lock, lines = registered(tmp_path, SMALL), []
    outcome = work(lock.folder, tell=lines.append)
    assert (outcome.done, outcome.complete, outcome.faults) == (8, True, ())
    assert {"train.txt", "valid.txt"} <= set(read)
    assert sum("begun" in line for line in lines) == 8
    # weights are kept of full runs alone
    kept = {path.parent.name.split(".")[0] for path in (lock.folder / "runs").glob("*/model.safetensors")}
    assert kept == {"run"}


@pytest.mark.slow
def test_two_folders_put_together_are_one(tmp_path: Path, no_fsync: None) -> None:
    path = write_plan(tmp_path, SMALL)
    for folder, only in (("one", None), ("two", "*.LSTM.*"), ("three", "*.GRU.*")):
        register(path, tmp_path / folder)
        assert work(tmp_path / folder, only=only).complete == (only is None)
    for folder in ("results", "runs"):
        shutil.copytree(tmp_path / "three" / folder, tmp_path / "two" / folder, dirs_exist_ok=True)
    assert work(tmp_path / "two").complete
    assert results(tmp_path / "two") == results(tmp_path / "one")


def test_threads_are_those_of_the_plan(tmp_path: Path, no_fsync: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where Python calls, and in what is measured after training."""
    used: list[int] = []
    original = execute_module.score

    def scored(*arguments: Any) -> Any:
        used.append(torch.get_num_threads())
        return original(*arguments)

    monkeypatch.setattr(execute_module, "score", scored)
    text = SMALL.replace("seeds = [1, 2]", "seeds = [1]\nthreads = 2").replace("tokens = 700", "tokens = 48")
    text = text[: text.index("[search]")] + text[text.index("[[system]]") :]
    lock, before = registered(tmp_path, text), torch.get_num_threads()
    assert work(lock.folder).complete
    assert used == [2, 2]
    assert torch.get_num_threads() == before
    record = json.loads(next(lock.folder.glob("runs/*/record.json")).read_text())
    assert record["environment"]["threads"] == 2


def test_the_test_split_is_opened_once(tmp_path: Path, no_fsync: None) -> None:
    lock = registered(tmp_path, SMALL)
    with pytest.raises(UsageError, match="is not finished, and the test split is opened once, at the end"):
        score_all(Board(lock), None)
    work(lock.folder)
    board = Board(lock)
    told: list[str] = []

    def interrupted(text: str) -> None:
        told.append(text)
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_all(board, None, interrupted)
    opened = json.loads((lock.folder / "test.lock.json").read_text())
    assert (opened["complete"], len(opened["scores"])) == (False, 1)
    first = score_all(board, None, told.append)
    assert len(told) == 5  # the first was not scored again
    assert first["complete"]
    assert first["scored_utc"] == opened["scored_utc"]
    assert len(first["scores"]) == 4
    assert all(len(score["model_sha256"]) == 64 for score in first["scores"])
    with pytest.raises(UsageError, match=r'the test split was scored on 20.*needs --again "why", which the report'):
        score_all(board, None)
    whole = (lock.folder / "test.lock.json").read_text()
    for damage in ({"scores": [{}]}, {"reasons": [{}]}, {"scored_utc": None}, {"scores": [1]}, {"kind": "x"}):
        (lock.folder / "test.lock.json").write_text(json.dumps({**json.loads(whole), **damage}))
        with pytest.raises(UnrolledError, match="holds no test scores: it is damaged"):
            found(board)
    (lock.folder / "test.lock.json").write_text(whole)
    again = score_all(board, "a reviewer asked")
    assert [score["nats_per_token"] for score in again["scores"]] == [
        score["nats_per_token"] for score in first["scores"]
    ]
    # a score of a model that is no longer the final one is not shown as that of another
    scored = json.loads((lock.folder / "test.lock.json").read_text())
    scored["scores"][0]["id"] = "run.another"
    (lock.folder / "test.lock.json").write_text(json.dumps(scored))
    assert len(found(board).test) == 3
    scored["scores"][0]["id"] = first["scores"][0]["id"]
    (lock.folder / "test.lock.json").write_text(json.dumps(scored))
    value = found(board)
    assert value.test_reasons == ("a reviewer asked",)
    assert len(value.test) == 4
    write_report(value, lock.folder)
    assert "a reviewer asked" in (lock.folder / "report.md").read_text()


def test_a_zombie_writes_nothing(tmp_path: Path, no_fsync: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose job was taken over while it slept sees that before its next save."""
    lock = registered(tmp_path, SMALL)
    board, steps, told = Board(lock), [0], []
    original = loop.train_step

    def slept(*arguments: Any, **options: Any) -> Any:
        steps[0] += 1
        if steps[0] == 3:
            (claim,) = (lock.folder / "claims").glob("*.json")
            claim.rename(claim.with_suffix(".lost"))
            claim.with_name(claim.name.replace(".1.json", ".2.json")).write_text(
                '{"nonce": "another", "host": "there"}'
            )
            before.update({path: path.stat().st_mtime_ns for path in lock.folder.rglob("*") if path.is_file()})
        return original(*arguments, **options)

    before: dict[Path, int] = {}
    monkeypatch.setattr(loop, "train_step", slept)
    job = board.todo()[0]
    claims = Claims(lock.folder)
    work(lock.folder, only=job.id, minutes=0.02, tell=told.append, claims=claims, wait=0.05)
    assert any("another worker took this job over" in line for line in told)
    assert not board.path(job).exists()
    after = {path: path.stat().st_mtime_ns for path in lock.folder.rglob("*") if path.is_file()}
    changed = {path.name for path in after if before.get(path) != after[path]}
    assert changed <= {"metrics.jsonl"}, changed


@pytest.mark.slow
def test_a_stop_saves_and_frees_the_job(tmp_path: Path, no_fsync: None, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, steps = registered(tmp_path, SMALL), [0]
    original = loop.train_step

    def stopped(*arguments: Any, **options: Any) -> Any:
        steps[0] += 1
        if steps[0] == 3:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments, **options)

    monkeypatch.setattr(loop, "train_step", stopped)
    with pytest.raises(StoppedError):
        work(lock.folder)
    assert Claims(lock.folder).living() == {}
    monkeypatch.setattr(loop, "train_step", original)
    assert work(lock.folder).complete
    path = tmp_path / "plan.toml"
    register(path, tmp_path / "undisturbed")
    work(tmp_path / "undisturbed")
    assert results(lock.folder) == results(tmp_path / "undisturbed")


def test_a_job_that_fails_is_tried_three_times_and_parked(
    tmp_path: Path, no_fsync: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = registered(tmp_path, SMALL)
    job = Board(lock).todo()[0]
    original = running_module.start.train

    def full(config: Any, out: Path, *rest: Any) -> Path:
        if out.name == job.id:
            raise UnrolledError(f"no space left while writing {out}.")
        return original(config, out, *rest)

    monkeypatch.setattr(running_module.start, "train", full)
    outcome = work(lock.folder)
    assert not outcome.complete
    assert len(outcome.faults) == 1
    assert f"job {job.id} failed 3 times (no space left while writing" in outcome.faults[0]
    assert "compare run" in outcome.faults[0]
    assert "--retry" in outcome.faults[0]
    # the other system's jobs are all done
    assert {one.system for one in Board(lock).todo()} == {job.system}
    monkeypatch.setattr(running_module.start, "train", original)
    Claims(lock.folder).retry()
    assert work(lock.folder).complete


def test_a_run_that_diverges_has_a_result(tmp_path: Path, no_fsync: None) -> None:
    recipe = RECIPE.replace('name = "adam"', 'name = "sgd"').replace("steps = 30", "steps = 30\nclip = 0")
    text = SMALL.replace("[0.01, 0.02]", "[0.01, 10000.0]").replace("tokens = 300", "tokens = 3000")
    lock = registered(tmp_path, text, recipe)
    assert work(lock.folder).complete
    for one in found(Board(lock)).systems:
        assert one.chosen == 0.01
        assert [tried.nats_per_token == float("inf") for tried in one.search] == [False, True]


@pytest.mark.slow
def test_a_signal_to_several_workers_saves_every_run(tmp_path: Path) -> None:
    """Told once, by the process that started them; what was begun is gone on with."""
    longer = SMALL.replace("tokens = 300", "tokens = 400000")
    lock = registered(tmp_path, longer)
    command = [sys.executable, "-m", "unrolled", "compare", "run", str(lock.folder), "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while len(list(lock.folder.glob("runs/*/train_state"))) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert told.count("stopped; the run is saved") == 2
    assert Claims(lock.folder).living() == {}
    assert all((run / "record.json").read_text().count('"stopped"') == 1 for run in lock.folder.glob("runs/*"))
