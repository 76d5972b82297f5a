"""Workers: they take jobs until none is left, each by itself, agreeing through files alone."""

import contextlib
import fnmatch
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from unrolled.compare.claims import Claims, LostClaimError
from unrolled.compare.execute import execute
from unrolled.compare.jobs import Board, Job
from unrolled.compare.lock import open_lock
from unrolled.core.errors import StoppedError, UnrolledError
from unrolled.core.memory import keep_freed_memory
from unrolled.train.metrics import TakenError

__all__ = ["Outcome", "faults", "work", "work_many"]

_WAIT = 2.0
Tell = Callable[[str], None]


class Outcome(NamedTuple):
    """How a worker ended: jobs that it did; whether all are done; sentences about what cannot go on."""

    done: int
    complete: bool
    faults: tuple[str, ...]


def work(
    folder: Path,
    only: str | None = None,
    minutes: float | None = None,
    device: str = "auto",
    tell: Tell = lambda text: None,
    progress: Callable[[Board, Job, str], None] = lambda board, job, text: None,
    claims: Claims | None = None,
    wait: float = _WAIT,
) -> Outcome:
    """Take jobs of a registered plan until none is left.

    Args:
        only: a pattern that a job's name must match, such as ``*mamba*``. minutes: no job is begun after so many.
        tell: hears a line for each job that is begun or done. progress: hears how far the one under way is.
        wait: seconds between looks for jobs while other workers have all that there are.
    Raises:
        StoppedError: a signal came; the run is saved, its job is free again.
    """
    keep_freed_memory()
    lock = open_lock(folder)
    board, claims, begun = Board(lock), claims or Claims(folder), time.monotonic()
    done, busy = 0, dict[str, float]()
    while True:
        parked = claims.parked()
        todo = [job for job in board.todo() if _matches(job, only) and job.id not in parked]
        if not todo or (minutes is not None and time.monotonic() - begun > 60 * minutes):
            break
        job, claim = None, None
        for candidate in todo:
            if busy.get(candidate.id, 0.0) > time.monotonic() or (claim := claims.take(candidate.id)) is None:
                continue
            if board.done(candidate):  # between the look and the claim another worker has done it
                claim.release()
                claim = None
                continue
            job = candidate
            break
        if job is None or claim is None:
            time.sleep(wait)
            continue
        with claim:
            tell(f"{job.id}: begun")
            try:
                result = execute(board, job, claim.check, lambda text, job=job: progress(board, job, text), device)
            except LostClaimError as error:
                tell(f"{job.id}: {error}")
                continue
            except (StoppedError, KeyboardInterrupt):
                claim.release()
                raise
            except TakenError:  # a process that lives still holds the run's folder
                claim.release()
                busy[job.id] = time.monotonic() + 30
                continue
            except Exception as error:
                claim.fail(str(error) or type(error).__name__)
                tell(f"{job.id}: failed: {error}")
                if not isinstance(error, UnrolledError):
                    raise
                continue
            claim.release()
            done += 1
            tell(f"{job.id}: {_told(result)}")
    return Outcome(done, not board.todo() and not board.refusals(), tuple(faults(board, claims)))


def _matches(job: Job, only: str | None) -> bool:
    return only is None or fnmatch.fnmatchcase(job.id, only)


def _told(result: dict[str, object]) -> str:
    if result["job"] == "time":
        return "timed"
    if result["status"] == "diverged":
        return "diverged"
    return f"{result['nats_per_token']:.4f} nats per token, {result['cpu_seconds']:.0f} CPU seconds"


def faults(board: Board, claims: Claims) -> list[str]:
    """Sentences about what cannot go on by itself: jobs that failed too often, searches that a plan refuses."""
    found, parked = board.refusals(), claims.parked()
    for job in board.todo():
        if (failure := parked.get(job.id)) is not None:
            found.append(
                f"job {job.id} failed {failure.times} times ({failure.reason.rstrip('.')}); mend that, then: unrolled "
                f"compare run {board.folder} --retry"
            )
    return found


def work_many(folder: Path, workers: int, arguments: list[str], threads: int, tell: Tell) -> int:
    """Start several workers as processes of their own, and wait for them; Ctrl-C ends them all after they saved.

    Args:
        arguments: options of ``compare run`` that each gets. threads: of each.
    Returns:
        the worst exit code.
    """
    count = str(threads)
    variables = {**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    command = [sys.executable, "-m", "unrolled", "compare", "run", str(folder), "--workers", "1", *arguments]
    processes = [subprocess.Popen(command, env=variables) for _ in range(workers)]
    try:
        while any(process.poll() is None for process in processes):
            time.sleep(0.2)
    except KeyboardInterrupt:
        tell("the workers save their runs and end")
        for process in processes:  # a terminal has told them already; kill -INT of this process alone has not
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(2)
        for process in processes:
            process.wait()
    return max(process.returncode if process.returncode >= 0 else 128 - process.returncode for process in processes)
