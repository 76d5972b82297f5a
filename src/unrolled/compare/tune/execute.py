"""Doing one job of a study: timing, a trial, or a run that confirms one."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from unrolled.compare.running import (
    Guard,
    finish,
    forget_weights,
    outcome,
    record_of,
    score,
    train_nats,
    validations,
)  # fmt: skip
from unrolled.compare.timing import time_systems
from unrolled.compare.tune.board import Board, Job
from unrolled.compare.tune.halving import Halving, PrunedError
from unrolled.core.errors import UsageError
from unrolled.runs import Run

__all__ = ["execute"]


def execute(
    board: Board, job: Job, check: Callable[[], None], tell: Callable[[str], None], device: str
) -> dict[str, Any]:
    """Do a job, from where an earlier worker left it, and write its result.

    Args:
        check: raises where the job is no longer this worker's; asked before anything is written. tell: hears of
            progress.
    Returns:
        the result. Of a trial: ``status`` is finished, pruned, diverged, or refused where its settings go together
        with no model; ``value``, nats per token, is None for the last two.
    Raises:
        StoppedError: a signal came; the run can be gone on with. UnrolledError: whatever else went wrong.
    """
    if job.kind == "time":
        size = board.study.sized(board.study.starts[0])
        value = time_systems({"recipe": size.config}, board.study.space.threads, tell)
    elif job.kind == "trial":
        value = _trial(board, job, check, tell, device)
    else:
        value = _confirmed(board, job, check, tell, device)
    check()
    return board.write(job, value)


def _trial(
    board: Board, job: Job, check: Callable[[], None], tell: Callable[[str], None], device: str
) -> dict[str, Any]:
    trial, folder = board.trials()[job.number], board.run_folder(job)
    known = {"number": trial.number, "settings": trial.settings, "seed": job.seed}
    try:
        config = board.experiment(job)
    except UsageError as error:
        return {**known, "status": "refused", "value": None, "reason": str(error), "cpu_seconds": 0.0, "curve": []}
    size = board.study.sized(trial.settings)
    known |= {"parameters": size.parameters, "width": size.width}
    if board.rungs.stopped(job.number) is None:
        with contextlib.suppress(PrunedError):
            finish(folder, config, Halving(check, tell, board.rungs, job.number), device)
    curve = list(validations(folder))
    found = {**known, **outcome(record_of(folder)), "curve": curve}
    stopped = board.rungs.stopped(job.number)
    if stopped is not None:  # its training state is kept: it can be gone on with
        share = stopped.check / config.train.validations
        return {**found, "status": "pruned", "value": stopped.value, "step": stopped.step, "share": share}
    if found["status"] == "diverged":
        forget_weights(folder)
        return {**found, "value": None}
    value = min(point["nats_per_token"] for point in curve)  # that of the saved weights
    forget_weights(folder)
    return {**found, "value": value}


def _confirmed(
    board: Board, job: Job, check: Callable[[], None], tell: Callable[[str], None], device: str
) -> dict[str, Any]:
    folder = board.run_folder(job)
    record = finish(folder, board.experiment(job), Guard(check, tell), device)
    found = {"number": job.number, "seed": job.seed, **outcome(record), "curve": list(validations(folder))}
    if found["status"] == "diverged":
        return {**found, "value": None}
    tell("scoring the validation split")
    begun = time.process_time()
    scored = score(Run(folder, device), folder, per_token=False)
    found["score_seconds"] = time.process_time() - begun
    return {**found, **scored, "value": scored["nats_per_token"], "train_nats": train_nats(folder)}
