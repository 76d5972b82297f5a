"""Training a run from wherever it is, for jobs that may be taken over at any moment, and reading what came out."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unrolled.core.errors import UnrolledError
from unrolled.core.files import make_folder, parse_json, read_json
from unrolled.evaluate import EvalConfig, evaluate_run, read_per_token
from unrolled.evaluate.bootstrap import BLOCK
from unrolled.runs import CONFIG, RECORD, Run
from unrolled.task import StepsTask
from unrolled.tasks.measure import evaluate_task
from unrolled.train import ExperimentConfig, Reporter, start
from unrolled.train.metrics import METRICS

__all__ = ["Guard", "block_means", "finish", "forget_weights", "of_task", "outcome", "record_of", "score", "train_nats",
           "validations"]  # fmt: skip

_PER_TOKEN = "valid.tsv.gz"
_LAST_SHARE = 0.1


class Guard(Reporter):
    """Looks whether the job is still this worker's before anything is written, and tells how far it is.

    Args:
        check: raises where it is not. tell: hears of progress.
    """

    def __init__(self, check: Callable[[], None], tell: Callable[[str], None]):
        self._check, self._tell = check, tell

    def saving(self) -> None:
        """See :class:`Reporter`."""
        self._check()

    def step(self, progress: Any, nats: float, lr: float) -> None:
        """See :class:`Reporter`."""
        if progress.phase_step % 50 == 0:
            self._tell(f"step {progress.phase_step:,} of {progress.phase_steps:,}, loss {nats:.3f}")


def finish(folder: Path, config: ExperimentConfig, guard: Guard, device: str) -> dict[str, Any]:
    """Train a run, or go on with it, until it is finished or has diverged.

    Args:
        folder: of the run. config: of one that has not begun.
    Returns:
        its record.
    Raises:
        StoppedError: a signal came; the run can be gone on with. UnrolledError: whatever else went wrong.
    """
    make_folder(folder.parent)
    if record_of(folder).get("status") not in ("finished", "diverged"):
        try:
            if (folder / CONFIG).exists():
                start.resume(folder, device, guard)
            else:
                start.train(config, folder, device, guard)
        except UnrolledError:
            if record_of(folder).get("status") != "diverged":
                raise
    return record_of(folder)


def record_of(folder: Path) -> dict[str, Any]:
    """The record of a run; empty where there is none yet."""
    path = folder / RECORD
    value = read_json(path) if path.exists() else {}
    return value if isinstance(value, dict) else {}


def outcome(record: dict[str, Any]) -> dict[str, Any]:
    """What a result says of the run behind it; JSON values."""
    return {
        "status": "diverged" if record.get("status") == "diverged" else "finished",
        "tokens": record.get("tokens", 0),
        "cpu_seconds": record.get("cpu_seconds", 0.0),
        "wall_seconds": record.get("wall_seconds", 0.0),
        "machine": _machine(record.get("environment", {})),
        "backends": record.get("backends", {}),
    }


def _machine(environment: Any) -> str:
    """Processor and instruction set, as far as a run says."""
    if not isinstance(environment, dict):
        return ""
    return ", ".join(str(environment[key]) for key in ("cpu", "cpu_capability", "gpu") if environment.get(key))


def _lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of a kind by their steps, each step once: a worker that slept while its job was taken over, on a file
    system whose locks another machine does not see, may have written steps a second time, with the same losses."""
    path, found = folder / METRICS, {}
    # what follows the last end of a line is being written, or was when a process was killed
    whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    for line in whole.splitlines():
        try:
            value = parse_json(line)
            if value["type"] == kind:
                kept = {key: value[key] for key in ("step", "tokens", "cpu", "nats")}
                found[int(value["step"])] = {**kept, "wall": value.get("wall", value["cpu"])}
        except (ValueError, KeyError, TypeError) as error:
            raise UnrolledError(f"{path} is damaged; delete {folder}, and run it again.") from error
    return [found[step] for step in sorted(found)]


def train_lines(folder: Path) -> list[dict[str, Any]]:
    """step, tokens, wall, cpu and nats of every line about training. Raises UnrolledError for a damaged log."""
    return _lines(folder, "train")


def valid_lines(folder: Path) -> list[dict[str, Any]]:
    """The same of every validation."""
    return _lines(folder, "valid")


def validations(folder: Path) -> Iterator[dict[str, Any]]:
    """Tokens, CPU seconds and nats per token of every validation in training."""
    for line in _lines(folder, "valid"):
        yield {"tokens": line["tokens"], "cpu_seconds": line["cpu"], "nats_per_token": line["nats"]}


def train_nats(folder: Path) -> float | None:
    """Mean training loss over the last tenth of the run."""
    lines = [(line["tokens"], line["nats"]) for line in _lines(folder, "train")]
    late = [nats for tokens, nats in lines if tokens > (1 - _LAST_SHARE) * lines[-1][0]]
    return sum(late) / len(late) if late else None


def forget_weights(folder: Path) -> None:
    """Of a run of a search its curve is kept, not its weights: nobody reads them, and there are many."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix == ".safetensors":
            path.unlink(missing_ok=True)


def score(run: Run, folder: Path, per_token: bool) -> dict[str, Any]:
    """The saved model on the whole validation split, by the default protocol; JSON values.

    Args:
        per_token: keep the log-probability of every token in the run's folder.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path = (folder if per_token else Path(temporary)) / _PER_TOKEN
        result = evaluate_run(run, config=EvalConfig(split="valid"), per_token=path)
        nats = -read_per_token(path).log_prob
    return {
        "nats_per_token": result.nats_per_token,
        "bits_per_character": result.bits_per_character,
        "parameters": result.provenance.get("parameters"),
        "block": BLOCK,
        "tokens_scored": len(nats),
        "blocks": block_means(nats).tolist(),
    }


def of_task(run: Run, split: str) -> tuple[dict[str, float], dict[str, float]]:
    """A split by the figures of a run's own task: ``nats_per_token``, of a frame, and the others by their names."""
    assert issubclass(run.task_class, StepsTask)
    figures = dict(evaluate_task(run, split=split).figures)
    return {"nats_per_token": figures.pop(run.task_class.goal.name)}, figures


def block_means(nats: np.ndarray, block: int = BLOCK) -> np.ndarray:
    """Mean nats per token of each block of so many tokens of a text, to a millionth; the last one may be shorter.

    Args:
        nats: (n,).
    """
    starts = np.arange(0, len(nats), block)
    return np.round(np.add.reduceat(nats, starts) / np.diff(np.append(starts, len(nats))), 6)
