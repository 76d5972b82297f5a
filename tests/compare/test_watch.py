"""Runs watched from their files: what is said of each, that it is right, and that nothing is written."""

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unrolled.compare.watch import look, sparkline, watched, watched_folders
from unrolled.core.errors import UsageError
from unrolled.train.metrics import MetricsLog

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A run whose log has so many lines of 1,000 tokens and two wall seconds each."""

    def run(name: str, lines: int, budget: dict[str, Any] | None = None, record: dict[str, Any] | None = None) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"train": budget or {"steps": 400}}))
        with (folder / "metrics.jsonl").open("w") as file:
            for i in range(1, lines + 1):
                shared = {"step": 10 * i, "tokens": 1000 * i, "wall": 2.0 * i, "cpu": 3.0 * i}
                file.write(json.dumps({"type": "train", "nats": 5 - 0.1 * i, "lr": 0.1, **shared}) + "\n")
                if i % 5 == 0:
                    file.write(json.dumps({"type": "valid", "nats": 5.5 - 0.1 * i, **shared}) + "\n")
        if record is not None:
            (folder / "record.json").write_text(json.dumps(record))
        return folder

    return run


def aged(folder: Path, seconds: float) -> Path:
    then = time.time() - seconds
    os.utime(folder / "metrics.jsonl", (then, then))
    return folder


def test_a_run_that_goes_on(make: Make) -> None:
    found = watched(make("a", 20))
    assert (found.status, found.step, found.tokens) == ("running", 200, 20_000)
    assert (found.nats, found.valid, found.best) == (pytest.approx(3.0), pytest.approx(3.5), pytest.approx(3.5))
    assert found.tokens_per_second == pytest.approx(500)
    assert (found.share, found.seconds_left) == (pytest.approx(0.5), pytest.approx(40))
    assert found.lines == 24


@pytest.mark.parametrize(
    ("budget", "share"),
    [
        ({"tokens": 80_000}, 0.25),
        ({"minutes": 1.0}, 40 / 60),
        ({"cpu_minutes": 2.0}, 0.5),
        ({"steps": 100, "then": [{"steps": 300}]}, 0.5),
        ({"steps": 100, "then": [{"tokens": 300}]}, None),
        ({"epochs": 3.0}, None),
    ],
)
def test_budgets(make: Make, budget: dict[str, Any], share: float | None) -> None:
    found = watched(make("a", 20, budget))
    assert found.share == (None if share is None else pytest.approx(share))
    assert found.seconds_left == (None if share is None else pytest.approx(40 * (1 - share) / share))


def test_silence_is_no_end_where_a_process_here_trains(make: Make) -> None:
    folder = aged(make("a", 4), 3600)
    assert (watched(folder).status, watched(folder).machine) == ("silent", "")
    if not Path("/proc/locks").exists():
        pytest.skip("the system has no list of locks")
    log = MetricsLog(folder)
    try:
        found = watched(folder)
        assert (found.status, found.machine) == ("running", platform.node())
    finally:
        log.close()
    assert watched(folder).status == "silent"


def test_a_run_that_ended(make: Make) -> None:
    done = watched(make("a", 4, record={"status": "finished", "environment": {"cpu": "an old one"}}))
    assert (done.status, done.machine, done.share, done.seconds_left) == ("finished", "an old one", 1.0, None)
    gone = watched(make("b", 4, record={"status": "diverged"}))
    assert (gone.status, gone.share) == ("diverged", 0.1)


def test_a_line_that_is_being_written_and_a_damaged_log(make: Make) -> None:
    folder = make("a", 4)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"type": "train", "st')
    assert watched(folder).step == 40
    (folder / "metrics.jsonl").write_text("{\n{}\n")
    assert (watched(folder).status, watched(folder).step) == ("damaged log", 0)


def test_a_folder_of_runs_and_nothing_is_written(make: Make, tmp_path: Path) -> None:
    make("runs/a", 3)
    make("runs/b", 4)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for folder in [tmp_path, *tmp_path.rglob("*/")]:
        folder.chmod(0o555)
    try:
        found = look([tmp_path / "runs", tmp_path / "runs" / "a"])
    finally:
        for folder in [tmp_path, *tmp_path.rglob("*/")]:
            folder.chmod(0o755)
    assert [Path(run["folder"]).name for run in found["runs"]] == ["a", "b", "a"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    with pytest.raises(UsageError, match="there is no folder"):
        list(watched_folders([tmp_path / "none"]))


def test_runs_of_a_comparison_say_who_trains_them(make: Make, tmp_path: Path) -> None:
    from compare.plans import registered
    from unrolled.compare import Board
    from unrolled.compare.claims import Claims

    board = Board(registered(tmp_path))
    job = board.known()[0]
    make(f"out/runs/{job.id}", 4)
    claims = Claims(board.folder)
    claim = claims.take(job.id)
    assert claim is not None
    value = json.loads(claim.path.read_text())
    claim.path.write_text(json.dumps({**value, "host": "elsewhere", "boot": "another"}))
    found = look([board.folder])
    claim._stop()
    assert (found["runs"][0]["machine"], found["runs"][0]["status"]) == ("elsewhere", "running")
    assert list(found["comparisons"][0]["running"]) == [job.id]
    assert found["comparisons"][0]["done"] == 0
    old = time.time() - 3600
    os.utime(claim.path, (old, old))
    assert look([board.folder])["runs"][0]["machine"] == ""


def test_bars() -> None:
    assert sparkline([3.0, 2.0, 1.0]) == "█▅▁"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([]) == ""


def test_many_losses_are_thinned_and_the_last_is_there(make: Make) -> None:
    found = watched(make("a", 100))
    assert len(found.losses) == 24
    assert found.losses[-1] == found.nats
