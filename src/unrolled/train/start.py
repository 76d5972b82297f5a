"""Starting and resuming runs."""

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import make_folder
from unrolled.core.record import environment
from unrolled.kernels import dispatch
from unrolled.runs import CONFIG, MODEL, RECORD, STATES, TOKENIZER, Run
from unrolled.task import TASKS, ClosedTask, Saved
from unrolled.tokenizer import load_tokenizer
from unrolled.train import checkpoint
from unrolled.train.budget import Clock
from unrolled.train.closed import fit_run
from unrolled.train.config import ExperimentConfig
from unrolled.train.loop import Trainer
from unrolled.train.metrics import METRICS, MetricsLog, TakenError
from unrolled.train.process import process_settings
from unrolled.train.report import Begun, Reporter
from unrolled.train.setup import Parts, open_closed, set_up
from unrolled.train.signals import StopRequest
from unrolled.train.tracking import make_trackers

__all__ = ["free_folder", "resume", "train"]


def free_folder(name: str) -> Path:
    """The first of ``runs/NAME-1``, ``runs/NAME-2``... that does not exist."""
    return next(path for i in itertools.count(1) if not (path := Path("runs") / f"{name}-{i}").exists())


def train(
    config: ExperimentConfig,
    out: str | os.PathLike[str],
    device: str = "auto",
    report: Reporter | None = None,
    clock: Clock | None = None,
    track: Sequence[str] = (),
) -> Path:
    """Train a new run.

    Args:
        out: the run directory; it must not hold a run yet.
        device: ``auto``, ``cpu``, ``cuda``, ...
        report: receives progress; silent by default.
        clock: what a budget in time counts; by default it starts with this call.
        track: names of :data:`unrolled.train.tracking.TRACKERS`, which hear of every line of the log.
    Returns:
        the run directory.
    Raises:
        UsageError, UnrolledError: in one sentence, whatever went wrong; the last good checkpoint stays.
    """
    out, clock = Path(out), clock or Clock()
    if (out / CONFIG).exists():
        raise UsageError(f"{out} already holds a run; continue it with --resume {out}, or choose another --out.")
    _check_free(out)
    before = {path.name for path in out.iterdir()} if out.is_dir() else None

    def begin() -> Parts:
        if (out / CONFIG).exists():  # another process was faster
            raise TakenError(f"{out} already holds a run; choose another --out.")
        parts = set_up(config, device)
        parts.task.save(out)
        parts.config.save(out / CONFIG)  # last: the folder is a run from here on, and can be resumed
        return parts

    try:
        make_folder(out)  # before the corpus is encoded, which may take minutes
        closed = open_closed(config)
        if closed is not None and track:
            raise UsageError(f"{closed.noun} is not trained in steps, so that there is nothing to track.")
        if closed is not None:
            fit_run(closed, out, report or Reporter(), clock)
            return out
        with process_settings(config.train.threads):
            return _run(out, begin, report, clock, track)
    except TakenError:
        raise
    except BaseException as error:
        # a full disk or Ctrl-C leaves what can be resumed; anything else that ends a run at its start would come again
        passing = isinstance(error, KeyboardInterrupt | UnrolledError) and not isinstance(error, UsageError)
        if not (passing and (out / CONFIG).exists()):
            _remove_unused(out, before)
        raise


def _check_free(out: Path) -> None:
    """Raises UsageError where a folder without a run holds files that one would replace. What a run that was killed
    before it began leaves is no such file: its log is empty, and its tokenizer one of ours."""
    files = [file for name in TASKS if issubclass(task := TASKS[name], ClosedTask) for file in task.files]
    taken = [name for name in (MODEL, RECORD, STATES, *files) if (out / name).exists()]
    if (out / METRICS).exists() and (out / METRICS).stat().st_size:
        taken.append(METRICS)
    if (out / TOKENIZER).exists():
        try:
            load_tokenizer(out / TOKENIZER)
        except UnrolledError:
            taken.append(TOKENIZER)
    if taken:
        raise UsageError(f"{out} holds {taken[0]}, which a run would replace; choose another --out.")


def resume(
    out: str | os.PathLike[str],
    device: str = "auto",
    report: Reporter | None = None,
    clock: Clock | None = None,
    track: Sequence[str] = (),
) -> Path:
    """Continue a run that was stopped or killed; on a CPU the result equals that of an uninterrupted one.

    Args:
        out, device, report, clock, track: see :func:`train`.
    Raises:
        UsageError: no run, or a finished one. UnrolledError: a damaged one, or the corpus has changed.
    """
    out, clock = Path(out), clock or Clock()
    if not (out / CONFIG).is_file():
        raise UsageError(f"{out} is not a run: it has no {CONFIG}; give the folder that `unrolled train` wrote.")
    config = ExperimentConfig.load(out / CONFIG)
    record = _record(out)
    if record.get("status") == "finished":
        raise UsageError(f"{out} is finished; train anew with another --out.")
    if record:  # said before another text fails in a tokenizer that does not know it
        Run(out, "cpu").check_text()
    with process_settings(config.train.threads):
        return _run(out, lambda: set_up(config, device, Saved(out, record)), report, clock, track)


def _record(run: Path) -> dict[str, Any]:
    """The record of a run; empty where there is none, or a damaged one, which is written anew."""
    with contextlib.suppress(UnrolledError):
        return Run(run, "cpu").record
    return {}


def _run(out: Path, begin: Callable[[], Parts], report: Reporter | None, clock: Clock, track: Sequence[str]) -> Path:
    """Claim the run, make its parts, restore its state if it has one, train, score, write the record."""
    report = report or Reporter()
    metrics = MetricsLog(out, make_trackers(track, out))
    try:
        parts = begin()
        checkpoint.sweep(out)
        stop = StopRequest()
        trainer = Trainer(parts, out, metrics, report, clock, stop)
        dispatch.forget_choices()
        if checkpoint.exists(out):
            trainer.restore()
        else:
            metrics.begin(0)
        trainer.write_record()
        report.start(Begun(out, parts.task.describe(parts.model), environment()))
        with stop:
            trainer.run()
            exact = trainer.score()
        trainer.status = "finished"
        trainer.write_record(exact)
        report.end(trainer.progress, exact)
    finally:
        report.close()
        metrics.close()
    return out


def _remove_unused(out: Path, before: set[str] | None) -> None:
    """Remove what a run that ended before its first step has left, so that its name is free again.

    Args:
        before: names of what was in the folder; None where there was no folder.
    """
    if out.is_dir() and (out / MODEL).exists():
        return
    if checkpoint.exists(out) and checkpoint.read_progress(out).step:
        return
    if before is None:
        shutil.rmtree(out, ignore_errors=True)
        return
    for path in out.iterdir() if out.is_dir() else ():
        if path.name not in before:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
