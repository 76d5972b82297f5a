"""Workers of a study: they ask for trials and run them, each by itself, agreeing through files alone."""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.compare.claims import Claim, Claims
from unrolled.compare.shifts import Tell, take_all, work_in_processes
from unrolled.compare.tune.board import Board, Job, Limit
from unrolled.compare.tune.execute import execute
from unrolled.compare.tune.lock import open_study
from unrolled.compare.tune.memory import Memory, open_memory
from unrolled.compare.tune.tuning import write_best
from unrolled.core.errors import UnrolledError
from unrolled.core.memory import keep_freed_memory

__all__ = ["Outcome", "faults", "work", "work_many"]

_WAIT = 2.0


class Outcome(NamedTuple):
    """How a worker ended: runs that it did; whether all is done; sentences about what cannot go on."""

    done: int
    complete: bool
    faults: tuple[str, ...]


def work(
    folder: Path,
    limit: Limit,
    storage: str | None = None,
    device: str = "auto",
    tell: Tell = lambda text: None,
    progress: Callable[[Job, str], None] = lambda job, text: None,
    claims: Claims | None = None,
    wait: float = _WAIT,
) -> Outcome:
    """Take trials of a study until there are as many as the limit says, confirm the best, and write ``best.toml``.

    Args:
        storage: URL of the database that the study began with. tell: hears a line for each run that is begun or done.
        progress: hears how far the one under way is. wait: seconds between looks while others have all that there is.
    Raises:
        StoppedError: a signal came; the run is saved, its trial is free again.
    """
    keep_freed_memory()
    board, claims = Board(open_study(folder)), claims or Claims(folder)
    with contextlib.closing(_opened(board, storage, claims, wait)) as memory:
        return _work(board, memory, limit, device, tell, progress, claims, wait)


def _opened(board: Board, storage: str | None, claims: Claims, wait: float) -> Memory:
    """The sampler's memory, opened by one worker at a time: the first one makes the tables of a database."""
    while (claim := claims.take("memory")) is None:
        time.sleep(wait)
    try:
        return open_memory(board, storage)
    finally:
        claim.release()


def _work(
    board: Board,
    memory: Memory,
    limit: Limit,
    device: str,
    tell: Tell,
    progress: Callable[[Job, str], None],
    claims: Claims,
    wait: float,
) -> Outcome:
    done = 0

    def todo() -> list[Job]:
        return board.todo(limit, claims.parked())

    def is_done(job: Job) -> bool:
        return not board.more(limit, claims.parked()) if job.kind == "ask" else board.result(job.id) is not None

    def do(job: Job, claim: Claim) -> str:
        nonlocal done
        if job.kind == "ask":
            trial = memory.ask()
            claim.check()
            board.add(trial)
            return ""
        tell(f"{job.id}: begun{_given(board, job)}")
        result = execute(board, job, claim.check, lambda text: progress(job, text), device)
        done += 1
        if job.kind == "trial":
            _tell(lambda: [memory.tell(job.number, result)], job.id, tell)
        return _told(result)

    take_all(claims, todo, is_done, do, tell, None, wait)
    _tell(memory.tell_all, "results", tell)
    stuck = faults(board, claims, limit)
    complete = not board.todo(limit) and not stuck
    if complete:
        write_best(board)
    return Outcome(done, complete, tuple(stuck))


def _tell(telling: Callable[[], Sequence[str | None]], what: str, tell: Tell) -> None:
    """The results are kept in files; a memory that cannot be reached now hears of them later."""
    try:
        for sentence in telling():
            if sentence is not None:
                tell(sentence)
    except UnrolledError as error:
        tell(f"{what}: the sampler will be told later: {error}")


def _given(board: Board, job: Job) -> str:
    if job.kind != "trial":
        return ""
    settings = board.trials()[job.number].settings
    return "; " + ", ".join(f"{name}={_short(value)}" for name, value in settings.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _told(result: dict[str, Any]) -> str:
    if result["job"] == "time":
        return "timed"
    if result["status"] == "refused":
        return f"refused: {result['reason']}"
    if result["value"] is None:
        return "diverged"
    where = f" at step {result['step']:,}, where it was stopped" if result["status"] == "pruned" else ""
    return f"{result['value']:.4f} nats per token{where}, {result['cpu_seconds']:.0f} CPU seconds"


def faults(board: Board, claims: Claims, limit: Limit) -> list[str]:
    """Sentences about what cannot go on by itself."""
    found = [
        f"{name} failed {failure.times} times ({failure.reason.rstrip('.')}); mend that, then: unrolled tune run "
        f"{board.folder} --retry."
        for name, failure in claims.parked().items()
        if name == "ask" or board.result(name) is None
    ]
    if not found and not board.todo(limit) and not board.leaders():
        found.append("no trial came to its end; search smaller learning rates, or other settings, in another study.")
    return found


def work_many(
    folder: Path, workers: int, limit: Limit, storage: str | None, device: str, threads: int, tell: Tell
) -> int:
    """Start several workers as processes of their own, and wait for them; Ctrl-C ends them all after they saved.

    Returns:
        the worst exit code.
    """
    command = ["tune", "run", str(folder), "--device", device]
    command += ["--trials", str(limit.trials)] if limit.trials is not None else []
    command += ["--cpu-hours", str(limit.cpu_hours)] if limit.cpu_hours is not None else []
    command += ["--storage", storage] if storage is not None else []
    return work_in_processes(command, workers, threads, tell)
