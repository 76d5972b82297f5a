"""Doing one job: train or resume its run, score it, and write its result."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unrolled.compare.jobs import Board, Job
from unrolled.compare.plan import MeasureConfig
from unrolled.compare.problems import measure_problem
from unrolled.compare.result_file import RESULT_KIND, RESULT_VERSION
from unrolled.compare.running import (
    Guard,
    finish,
    forget_weights,
    of_task,
    outcome,
    score,
    train_nats,
    validations,
)
from unrolled.compare.timing import time_systems
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import make_folder, write_json
from unrolled.core.record import environment
from unrolled.evaluate import EvalConfig, evaluate_run
from unrolled.runs import CONFIG, Run

__all__ = ["RUNS", "execute", "measured", "run_folder", "score_test"]

RUNS = "runs"


def run_folder(board: Board, job: Job) -> Path:
    """The run directory of a job."""
    return board.folder / RUNS / job.id


def execute(
    board: Board,
    job: Job,
    check: Callable[[], None],
    tell: Callable[[str], None] = lambda text: None,
    device: str = "auto",
) -> dict[str, Any]:
    """Do a job, from where an earlier worker left it, and write its result.

    Args:
        check: raises where the job is no longer this worker's; asked before anything is written. tell: hears of
            progress.
    Returns:
        the result; a run that diverged has one too.
    Raises:
        StoppedError: a signal came; the run can be gone on with. UnrolledError: whatever went wrong.
    """
    if job.kind == "time":
        systems = {one.system: one.experiment() for one in board.lock.systems if one.corpus == job.corpus}
        value = time_systems(systems, board.lock.plan.threads, tell)
    else:
        value = _trained(board, job, check, tell, device)
    check()
    make_folder(board.path(job).parent)
    value = {"kind": RESULT_KIND, "version": RESULT_VERSION, "id": job.id, "job": job.kind, **value}
    write_json(board.path(job), value)
    return value


def _trained(
    board: Board, job: Job, check: Callable[[], None], tell: Callable[[str], None], device: str
) -> dict[str, Any]:
    folder = run_folder(board, job)
    record = finish(folder, job.experiment(board.locked(job)), Guard(check, tell), device)
    whole = list(validations(folder))
    curve = [point for point in whole if math.isfinite(point["nats_per_token"])]
    common = {
        "system": job.system, "corpus": job.corpus, "seed": job.seed, "value": job.value, **outcome(record),
        "curve": curve,
    }  # fmt: skip
    if common["status"] == "diverged" or len(curve) < len(whole):
        return {**common, "status": "diverged"}
    if job.kind == "search":
        # the quick figure of the saved weights: of the validations in training, the best
        value = {**common, **_best(curve)}
        forget_weights(folder)
        return value
    run, plan = Run(folder, device), board.lock.plan
    if plan.problem:
        tell("measuring at points")
        problem = next(one for one in plan.problem if one.label == job.corpus)
        scored, figures = _best(curve), measure_problem(run, problem)
    elif run.config.task.name != "lm":
        tell("measuring the validation split")
        scored, figures = of_task(run, "valid")
    else:
        tell("scoring the validation split")
        scored = score(run, folder, plan.per_token)
        figures = {name: value for one in plan.measure for name, value in measured(run, one).items()}
    if not all(map(math.isfinite, (scored["nats_per_token"], *figures.values()))):
        # training saw nothing wrong, and rows that it did not have make numbers that are none
        return {**common, "status": "diverged"}
    return {**common, **scored, "figures": figures, "train_nats": train_nats(folder)}


def _best(curve: list[dict[str, Any]]) -> dict[str, float]:
    return {"nats_per_token": min(point["nats_per_token"] for point in curve)}


def measured(run: Run, one: MeasureConfig) -> dict[str, float]:
    """Further figures of a run, by name."""
    from unrolled.analyse import RecoveryConfig, recovery_of_run

    config = RecoveryConfig.parse({
        "split": "valid", "places": one.places, "lags": one.lags, "columns": one.columns,
    })  # fmt: skip
    excess = recovery_of_run(run, config=config).excess.mean(0)
    return {"recovery_bits": float(excess.sum()), "recovery_first_bits": float(excess[0])}


def score_test(board: Board, job: Job, device: str) -> dict[str, Any]:
    """The test score of a final model, by the default protocol."""
    folder = run_folder(board, job)
    if not (folder / CONFIG).exists():
        raise UsageError(f"the run {folder} is not here, so that it cannot be scored; bring the folder of runs back.")
    run = Run(folder, device)
    if run.config.task.name != "lm":
        scored, figures = of_task(run, "test")
        if not all(map(math.isfinite, (*scored.values(), *figures.values()))):
            raise UnrolledError(f"a test figure of {folder} is not a finite number.")
        return {**scored, "figures": figures, "environment": environment()}
    corpus = run.config.corpus.model_copy(update={"splits": None})
    result = evaluate_run(run, corpus, EvalConfig(split="test"))
    if not math.isfinite(result.nats):
        raise UnrolledError(f"the test score of {folder} is not a finite number.")
    return {"nats_per_token": result.nats_per_token, "bits_per_character": result.bits_per_character,
            "environment": environment()}  # fmt: skip
