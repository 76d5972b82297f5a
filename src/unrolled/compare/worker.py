"""Workers: they take jobs until none is left, each by itself, agreeing through files alone."""

import fnmatch
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from unrolled.compare.claims import Claim, Claims
from unrolled.compare.execute import execute
from unrolled.compare.jobs import Board, Job
from unrolled.compare.lock import open_lock
from unrolled.compare.shifts import Tell, take_all, work_in_processes
from unrolled.core.memory import keep_freed_memory
from unrolled.train.process import process_settings

__all__ = ["Outcome", "faults", "work", "work_many"]

_WAIT = 2.0


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
    board, claims = Board(open_lock(folder)), claims or Claims(folder)

    def do(job: Job, claim: Claim) -> str:
        tell(f"{job.id}: begun")
        return _told(execute(board, job, claim.check, lambda text: progress(board, job, text), device))

    def todo() -> list[Job]:
        return [job for job in board.todo() if _matches(job, only)]

    with process_settings(board.lock.plan.threads):  # of scores too, whose bits depend on them
        done = take_all(claims, todo, board.done, do, tell, minutes, wait)
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
    command = ["compare", "run", str(folder), "--workers", "1", *arguments]
    return work_in_processes(command, workers, threads, tell)
