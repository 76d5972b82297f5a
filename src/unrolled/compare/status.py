"""How far a comparison is, read from its files alone."""

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from unrolled.compare.claims import Claims
from unrolled.compare.execute import run_folder
from unrolled.compare.jobs import Board, Job
from unrolled.compare.results import CurvePoint
from unrolled.compare.running import validations
from unrolled.compare.worker import faults
from unrolled.core.errors import UnrolledError

__all__ = ["Progress", "curves", "progress", "states"]


class Progress(NamedTuple):
    """How far a comparison is.

    Attributes:
        done, expected: jobs. running: job -> who works on it. rows: a system and corpus each: searches done, the value
            chosen, runs done and wanted, mean nats per token of those. cpu_hours: spent. cpu_hours_left: an estimate by
            the jobs that are done; None where none of a kind is. faults: sentences about what cannot go on.
    """

    done: int
    expected: int
    running: dict[str, dict[str, Any]]
    rows: tuple[dict[str, Any], ...]
    cpu_hours: float
    cpu_hours_left: float | None
    faults: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"kind": "unrolled comparison status", **self._asdict(), "rows": list(self.rows)}


def progress(board: Board, claims: Claims | None = None) -> Progress:
    """How far a comparison is; nothing is written but a file for the time of a moment."""
    claims = claims or Claims(board.folder)
    known = board.known()
    results = {job: result for job in known if (result := board.result(job)) is not None}
    seconds = {job: float(result.get("cpu_seconds", 0.0)) for job, result in results.items()}
    return Progress(
        done=len(results),
        expected=board.expected(),
        running={job: worker for job, worker in claims.living().items() if job not in {j.id for j in results}},
        rows=tuple(_row(board, one.system, one.corpus, results) for one in board.lock.systems),
        cpu_hours=sum(seconds.values()) / 3600,
        cpu_hours_left=_left(board, known, results, seconds),
        faults=tuple(faults(board, claims)),
    )


def _left(board: Board, known: list[Job], results: Mapping[Job, Any], seconds: Mapping[Job, float]) -> float | None:
    """By the CPU seconds per token of the jobs of each system that are done, or of all systems."""
    rates: dict[str, list[float]] = {}
    for job, spent in seconds.items():
        if job.kind != "time" and (tokens := results[job].get("tokens")):
            rates.setdefault(job.system, []).append(spent / tokens)
    if not rates:
        return None
    every = [rate for values in rates.values() for rate in values]
    rate = {system: sum(values) / len(values) for system, values in rates.items()}
    total = 0.0
    waiting = {(one.system, one.corpus) for one in board.lock.systems}
    for job in known:
        if job.kind == "run":
            waiting.discard((job.system, job.corpus))
        if job not in results:
            total += job.tokens * rate.get(job.system, sum(every) / len(every))
    for system, corpus in waiting:  # runs that are not known before the search is done
        tokens = board.tokens(board.lock.locked(system, corpus)) or 0
        total += len(board.lock.plan.seeds) * tokens * rate.get(system, sum(every) / len(every))
    return total / 3600


def _row(board: Board, system: str, corpus: str, results: Mapping[Job, Any]) -> dict[str, Any]:
    own = [job for job in results if (job.system, job.corpus) == (system, corpus)]
    runs = [results[job] for job in own if job.kind == "run"]
    locked = board.lock.locked(system, corpus)
    choice = board.choice(locked)
    if choice is not None:
        runs = [run for run in runs if run["value"] == choice.value]
    nats = [run["nats_per_token"] for run in runs if run["status"] == "finished"]
    return {
        "system": system,
        "corpus": corpus,
        "parameters": locked.parameters,
        "searched": sum(job.kind == "search" for job in own),
        "chosen": None if choice is None else choice.value,
        "runs": len(runs),
        "wanted": len(board.lock.plan.seeds),
        "diverged": sum(run["status"] == "diverged" for run in runs),
        "nats_per_token": sum(nats) / len(nats) if nats else None,
    }


def states(board: Board, running: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What of every job that is known is to be said, in a word or a few."""
    found = {}
    for job in board.known():
        result, worker = board.result(job), running.get(job.id)
        if result is not None:
            found[job.id] = "diverged" if result.get("status") == "diverged" else "done"
        else:
            found[job.id] = f"running on {worker.get('host')}" if worker else "waiting"
    return found


def curves(board: Board) -> dict[str, list[CurvePoint]]:
    """The validations of every full run, done or under way, by the name of its job."""
    found = {}
    for job in board.known():
        if job.kind == "run":
            with contextlib.suppress(UnrolledError, OSError):
                result = board.result(job)
                points = result["curve"] if result is not None else list(validations(run_folder(board, job)))
                if points:
                    found[job.id] = [CurvePoint(**point) for point in points]
    return found
