"""Claims: one worker a job, whoever dies and whatever the clocks say."""

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from unrolled.compare.claims import Claim, Claims, LostClaimError


def foreign(claim: Claim) -> None:
    """Make a claim look as if another machine had made it."""
    value = json.loads(claim.path.read_text())
    claim.path.write_text(json.dumps({**value, "host": "elsewhere", "boot": "another"}))


def test_a_job_is_claimed_once(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    claim = claims.take("run.a")
    assert claim is not None
    assert claims.take("run.a") is None
    other = claims.take("run.ab")
    assert other is not None
    assert set(claims.living()) == {"run.a", "run.ab"}
    claim.release()
    other.release()
    assert claims.living() == {}
    again = claims.take("run.a")
    assert again is not None
    again.release()


def _claim(folder: Path, start: float, taken: "multiprocessing.Queue[bool]") -> None:
    claims = Claims(folder)
    time.sleep(max(0.0, start - time.time()))
    taken.put(claims.take("job") is not None)
    time.sleep(0.5)


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    taken = context.Queue()
    start = time.time() + 0.2
    processes = [context.Process(target=_claim, args=(tmp_path, start, taken)) for _ in range(6)]
    for process in processes:
        process.start()
    got = [taken.get(timeout=20) for _ in processes]
    for process in processes:
        process.join()
    assert sum(got) == 1


def test_a_dead_process_of_this_machine_is_seen_at_once(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    process = multiprocessing.get_context("fork").Process(target=claims.take, args=("job",))
    process.start()
    process.join()
    assert (tmp_path / "claims" / "job.1.json").exists()
    claim = claims.take("job")
    assert claim is not None
    assert claim.path.name == "job.2.json"
    assert (tmp_path / "claims" / "job.1.lost").exists()
    claim.release()


@pytest.mark.parametrize("clock", [0.0, 3600.0, -3600.0])
def test_a_silent_worker_elsewhere_is_taken_over(tmp_path: Path, clock: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the times of one file system, whatever this machine's clock says."""
    claims = Claims(tmp_path, stale=60)
    first = claims.take("job")
    assert first is not None
    foreign(first)
    shifted = time.time() + clock
    monkeypatch.setattr(time, "time", lambda: shifted)
    assert claims.take("job") is None
    then = first.path.stat().st_mtime - 61
    os.utime(first.path, (then, then))
    second = claims.take("job")
    assert second is not None
    assert not first.held()
    with pytest.raises(LostClaimError, match="another worker took this job over"):
        first.check()
    first.release()  # of a job that is no longer its own it removes nothing
    assert second.held()
    second.release()


def test_a_heart_beats(tmp_path: Path) -> None:
    claims = Claims(tmp_path, heartbeat=0.02)
    claim = claims.take("job")
    assert claim is not None
    os.utime(claim.path, (1.0, 1.0))
    until = time.monotonic() + 5
    while claim.path.stat().st_mtime == 1.0 and time.monotonic() < until:
        time.sleep(0.01)
    assert claim.path.stat().st_mtime > 1.0
    claim.release()
    assert not claim.path.exists()


def test_a_job_that_fails_three_times_is_parked(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    for number in range(3):
        assert "job" not in claims.parked()
        claim = claims.take("job")
        assert claim is not None
        claim.fail(f"fault {number}")
    assert claims.parked()["job"] == (3, "fault 2")
    assert claims.retry() == 3
    assert claims.parked() == {}


def test_a_claim_without_content_is_no_dead_one(tmp_path: Path) -> None:
    """A worker that was just about to write into it."""
    claims = Claims(tmp_path)
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "job.1.json").touch()
    assert claims.take("job") is None


def test_a_failure_counts_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = Claims(tmp_path)
    claim = claims.take("job")
    assert claim is not None

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(Path, "write_text", full)
    claim.fail("no space left while writing")
    assert claims.failures()["job"].times == 1


def test_odd_names_in_the_folder_are_no_claims(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    (tmp_path / "claims").mkdir()
    for name in ("job.².json", "job.².failed", "job.x.lost", "job.json"):
        (tmp_path / "claims" / name).write_text("[]")
    claim = claims.take("job")
    assert claim is not None
    assert claim.path.name == "job.1.json"
    assert claims.failures() == {}
    claim.release()
