"""The test split: opened once, when everything else is decided, and written down."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from unrolled.compare.execute import run_folder, score_test
from unrolled.compare.jobs import Board, Job
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import read_json, sha256_file, write_json
from unrolled.runs import MODEL

__all__ = ["TEST", "read_test", "score_all"]

TEST = "test.lock.json"
_KIND, _VERSION = "unrolled test scores", 1


class _Score(BaseModel):
    id: str
    system: str
    corpus: str
    seed: int
    nats_per_token: float = Field(allow_inf_nan=False)


class _Reason(BaseModel):
    why: str


class _Scores(BaseModel):
    """What is read of the file."""

    scored_utc: str
    complete: bool
    reasons: list[_Reason]
    scores: list[_Score]


def read_test(folder: Path) -> dict[str, Any] | None:
    """The test scores of a comparison; None where the split was not opened yet."""
    path = folder / TEST
    if not path.exists():
        return None
    value = read_json(path)
    if (
        not isinstance(value, dict)
        or value.get("kind") != _KIND
        or value.get("version") != _VERSION
        or not _sound(value)
    ):
        raise UnrolledError(f"{path} holds no test scores: it is damaged, or of another program.")
    return value


def _sound(value: dict[str, Any]) -> bool:
    try:
        _Scores.model_validate(value)
    except ValidationError:
        return False
    return True


def score_all(
    board: Board, again: str | None, tell: Callable[[str], None] = lambda text: None, device: str = "auto"
) -> dict[str, Any]:
    """Score every final model once on the test split, and write that down, each when it is made; one that was
    interrupted is gone on with.

    Args:
        again: why it is scored once more, which the report prints.
    Raises:
        UsageError: it was scored before, and no reason is given; runs are missing.
    """
    if board.lock.plan.problem:
        raise UsageError("a plan of synthetic problems has no test split; points are measured on rows of their own.")
    before = read_test(board.folder)
    going_on = before is not None and not before["complete"]
    if before is not None and not going_on and not again:
        date = before["scored_utc"].partition("T")[0]
        raise UsageError(
            f'the test split was scored on {date}; scoring it again needs --again "why", which the report will print.'
        )
    jobs = _final(board)
    value: dict[str, Any] = {
        "kind": _KIND, "version": _VERSION, "scored_utc": _now(), "plan_sha256": board.lock.sha256, "complete": False,
        "reasons": [], "scores": [],
    }  # fmt: skip
    if before is not None:
        value |= {key: before[key] for key in ("scored_utc", "reasons")}
        value["scores"] = before["scores"] if going_on else []
        value["reasons"] = [*value["reasons"], *([{"utc": _now(), "why": again}] if again else [])]
    # the seal comes before the first score, so that a process killed in between leaves the split opened for all to see
    write_json(board.folder / TEST, value)
    scored = {score["id"] for score in value["scores"]}
    for number, job in enumerate(jobs, 1):
        if job.id in scored:
            continue
        tell(f"test split, {number} of {len(jobs)}: {job.id}")
        found = score_test(board, job, device)
        value["scores"].append({
            "id": job.id, "system": job.system, "corpus": job.corpus, "seed": job.seed,
            "model_sha256": sha256_file(run_folder(board, job) / MODEL), **found,
        })  # fmt: skip
        write_json(board.folder / TEST, value)
    value["complete"] = True
    write_json(board.folder / TEST, value)
    return value


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _final(board: Board) -> list[Job]:
    """The full runs that finished, of each system with its chosen value."""
    if board.todo():
        raise UsageError(
            f"{board.folder} is not finished, and the test split is opened once, at the end; first: unrolled compare "
            f"run {board.folder}."
        )
    final: list[Job] = []
    for locked in board.lock.systems:
        choice = board.choice(locked)
        jobs = [] if choice is None or choice.refused is not None else board.run_jobs(locked, choice.value)
        final += [job for job in jobs if (board.result(job) or {}).get("status") == "finished"]
    return final
