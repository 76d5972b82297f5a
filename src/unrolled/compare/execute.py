"""Doing one job: train or resume its run, score it, and write its result."""

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unrolled.compare.jobs import RESULT_KIND, RESULT_VERSION, Board, Job
from unrolled.compare.plan import ProbeConfig
from unrolled.compare.timing import time_systems
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import make_folder, parse_json, read_json, write_json
from unrolled.core.record import environment
from unrolled.evaluate import EvalConfig, evaluate_run, read_per_token
from unrolled.evaluate.bootstrap import BLOCK
from unrolled.runs import CONFIG, RECORD, Run
from unrolled.train import Reporter, start
from unrolled.train.metrics import METRICS

__all__ = ["RUNS", "block_means", "execute", "run_folder", "score_test", "validations"]

RUNS = "runs"
_PER_TOKEN = "valid.tsv.gz"
_LAST_SHARE = 0.1


class _Guard(Reporter):
    """Looks whether the job is still this worker's before anything is written, and tells how far it is."""

    def __init__(self, check: Callable[[], None], tell: Callable[[str], None]):
        self._check, self._tell = check, tell

    def saving(self) -> None:
        self._check()

    def step(self, progress: Any, nats: float, lr: float) -> None:
        if progress.phase_step % 50 == 0:
            self._tell(f"step {progress.phase_step:,} of {progress.phase_steps:,}, loss {nats:.3f}")


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
    make_folder(folder.parent)
    record = _record(folder)
    if record.get("status") not in ("finished", "diverged"):
        try:
            guard = _Guard(check, tell)
            if (folder / CONFIG).exists():
                start.resume(folder, device, guard)
            else:
                start.train(job.experiment(board.locked(job)), folder, device, guard)
        except UnrolledError:
            if _record(folder).get("status") != "diverged":
                raise
        record = _record(folder)
    diverged = record.get("status") == "diverged"
    curve = list(validations(folder))
    common = {
        "system": job.system,
        "corpus": job.corpus,
        "seed": job.seed,
        "value": job.value,
        "status": "diverged" if diverged else "finished",
        "tokens": record.get("tokens", 0),
        "cpu_seconds": record.get("cpu_seconds", 0.0),
        "wall_seconds": record.get("wall_seconds", 0.0),
        "machine": _machine(record.get("environment", {})),
        "backends": record.get("backends", {}),
    }
    if diverged:
        return {**common, "curve": curve}
    if job.kind == "search":
        # the quick figure of the saved weights: of the validations in training, the best
        value = {**common, "nats_per_token": min(point["nats_per_token"] for point in curve), "curve": curve}
        _forget_weights(folder)
        return value
    tell("scoring the validation split")
    return {**common, **_scored(board, folder, device), "train_nats": _train_nats(folder), "curve": curve}


def _record(folder: Path) -> dict[str, Any]:
    """The record of a run; empty where there is none yet."""
    path = folder / RECORD
    value = read_json(path) if path.exists() else {}
    return value if isinstance(value, dict) else {}


def _machine(environment: Any) -> str:
    """Processor and instruction set, as far as a run says."""
    if not isinstance(environment, dict):
        return ""
    return ", ".join(str(environment[key]) for key in ("cpu", "cpu_capability", "gpu") if environment.get(key))


def _lines(folder: Path, kind: str) -> Iterator[dict[str, Any]]:
    path = folder / METRICS
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            value = parse_json(line)
        except ValueError as error:
            raise UnrolledError(f"{path} is damaged; delete {folder}, and run it again.") from error
        if isinstance(value, dict) and value.get("type") == kind:
            yield value


def validations(folder: Path) -> Iterator[dict[str, Any]]:
    """Tokens, CPU seconds and nats per token of every validation in training."""
    for line in _lines(folder, "valid"):
        yield {"tokens": line["tokens"], "cpu_seconds": line["cpu"], "nats_per_token": line["nats"]}


def _train_nats(folder: Path) -> float | None:
    """Mean training loss over the last tenth of the run."""
    lines = [(line["tokens"], line["nats"]) for line in _lines(folder, "train")]
    late = [nats for tokens, nats in lines if tokens > (1 - _LAST_SHARE) * lines[-1][0]]
    return sum(late) / len(late) if late else None


def _forget_weights(folder: Path) -> None:
    """Of a run of the search its curve is kept, not its weights: nobody reads them, and there are many."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix == ".safetensors":
            path.unlink(missing_ok=True)


def _scored(board: Board, folder: Path, device: str) -> dict[str, Any]:
    run, plan = Run(folder, device), board.lock.plan
    with tempfile.TemporaryDirectory() as temporary:
        path = folder / _PER_TOKEN if plan.per_token else Path(temporary) / _PER_TOKEN
        result = evaluate_run(run, config=EvalConfig(split="valid"), per_token=path)
        nats = -read_per_token(path).log_prob
    figures = {name: value for probe in plan.probe for name, value in _probed(run, probe).items()}
    return {
        "nats_per_token": result.nats_per_token,
        "bits_per_character": result.bits_per_character,
        "parameters": result.provenance.get("parameters"),
        "block": BLOCK,
        "tokens_scored": len(nats),
        "blocks": block_means(nats).tolist(),
        "figures": figures,
    }


def block_means(nats: np.ndarray, block: int = BLOCK) -> np.ndarray:
    """Mean nats per token of each block of so many tokens of a text, to a millionth; the last one may be shorter.

    Args:
        nats: (n,).
    """
    starts = np.arange(0, len(nats), block)
    return np.round(np.add.reduceat(nats, starts) / np.diff(np.append(starts, len(nats))), 6)


def _probed(run: Run, probe: ProbeConfig) -> dict[str, float]:
    """Further figures of a run, by name."""
    from unrolled.analyse import RecoveryConfig, recovery_of_run

    config = RecoveryConfig.parse({
        "split": "valid", "places": probe.places, "lags": probe.lags, "columns": probe.columns,
    })  # fmt: skip
    excess = recovery_of_run(run, config=config).excess.mean(0)
    return {"recovery_bits": float(excess.sum()), "recovery_first_bits": float(excess[0])}


def score_test(board: Board, job: Job, device: str) -> dict[str, Any]:
    """The test score of a final model, by the default protocol."""
    folder = run_folder(board, job)
    if not (folder / CONFIG).exists():
        raise UsageError(f"the run {folder} is not here, so that it cannot be scored; bring the folder of runs back.")
    run = Run(folder, device)
    corpus = run.config.corpus.model_copy(update={"splits": None})
    result = evaluate_run(run, corpus, EvalConfig(split="test"))
    if not math.isfinite(result.nats):
        raise UnrolledError(f"the test score of {folder} is not a finite number.")
    return {"nats_per_token": result.nats_per_token, "bits_per_character": result.bits_per_character,
            "environment": environment()}  # fmt: skip
