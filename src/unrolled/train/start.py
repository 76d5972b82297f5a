"""Starting and resuming runs."""

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unrolled.core.errors import LostError, UnrolledError, UsageError
from unrolled.core.files import make_folder
from unrolled.core.group import Group, agreed, current, in_turn, joined
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
from unrolled.train.metrics import METRICS, MetricsLog, NoLog, TakenError
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
    clock = clock or Clock()
    with joined(device) as group:
        out, before = Path(group.first(str(out))), None

        def make() -> Parts:
            if group.main and (out / CONFIG).exists():  # another process was faster
                raise TakenError(f"{out} already holds a run; choose another --out.")
            parts = set_up(config, device)
            if group.main:
                parts.task.save(out)
                parts.config.save(out / CONFIG)  # last: the folder is a run from here on, and can be resumed
            return parts

        with agreed():
            if group.main:
                _check_free(out)
                before = {path.name for path in out.iterdir()} if out.is_dir() else None
        try:
            with agreed():
                if group.main:
                    make_folder(out)  # before the corpus is encoded, which may take minutes
                closed = _closed(config, track, group)
            if closed is not None:
                fit_run(closed, out, report or Reporter(), clock)
                return out
            with process_settings(config.train.threads):
                return _run(out, make, report, clock, track)
        except TakenError:
            raise
        except BaseException as error:
            # a full disk or Ctrl-C leaves what can be resumed; anything else that ends a run at its start would come
            # again
            passing = isinstance(error, KeyboardInterrupt | UnrolledError) and not isinstance(error, UsageError)
            if group.main and not (passing and (out / CONFIG).exists()):
                _remove_unused(out, before)
            raise


def _closed(config: ExperimentConfig, track: Sequence[str], group: Group) -> ClosedTask | None:
    closed = open_closed(config)
    if closed is not None and track:
        raise UsageError(f"{closed.noun} is not trained in steps, so that there is nothing to track.")
    if closed is not None and group.world > 1:
        raise UsageError(f"{closed.noun} is not trained in steps, and by one process alone; start it without torchrun.")
    return closed


def _check_free(out: Path) -> None:
    """Raises UsageError where a folder holds a run, or files that one would replace. What a run that was killed before
    it began leaves is no such file: its log is empty, and its tokenizer one of ours."""
    if (out / CONFIG).exists():
        raise UsageError(f"{out} already holds a run; continue it with --resume {out}, or choose another --out.")
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
    with joined(device):
        with agreed():
            if not (out / CONFIG).is_file():
                raise UsageError(
                    f"{out} is not a run: it has no {CONFIG}; give the folder that `unrolled train` wrote."
                )
            config, record = ExperimentConfig.load(out / CONFIG), _record(out)
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


def _run(out: Path, make: Callable[[], Parts], report: Reporter | None, clock: Clock, track: Sequence[str]) -> Path:
    """Claim the run, make its parts, restore its state if it has one, train, score, write the record. In a group,
    process 0 writes and reports for all."""
    group = current()
    report = report if report is not None and group.main else Reporter()
    with agreed():
        metrics = MetricsLog(out, make_trackers(track, out)) if group.main else NoLog()
    try:
        parts = in_turn(make)
        _check_same(parts, out)
        stop = StopRequest()
        with agreed():
            if group.main:
                checkpoint.sweep(out)
        trainer = Trainer(parts, out, metrics, report, clock, stop)
        dispatch.forget_choices()
        if group.first(checkpoint.exists(out)):
            trainer.restore()
        else:
            metrics.begin(0)
        trainer.write_record()
        report.start(Begun(out, parts.task.describe(parts.model), environment(), group.world, parts.task.unit))
        with stop:
            trainer.run()
            exact = trainer.score()
        trainer.status = "finished"
        trainer.write_record(exact)
        report.end(trainer.progress, exact)
    except RuntimeError as error:
        if group.lost(error):
            raise LostError from error
        raise
    finally:
        report.close()
        metrics.close()
    return out


def _check_same(parts: Parts, out: Path) -> None:
    """Raises UsageError, in all processes, where one reads another text or writes into another folder."""
    group = current()
    with agreed():
        if not (out / CONFIG).is_file():
            raise UsageError(
                f"process {group.rank} does not see {out / CONFIG}; processes on several machines need a shared folder."
            )
    checksums = {name: split.checksum for name, split in parts.task.splits.items()}
    with agreed():
        for rank, others in enumerate(group.gather(checksums)):
            if odd := [name for name in checksums if others.get(name) != checksums[name]]:
                raise UsageError(
                    f"process {rank} reads another text than process {group.rank} (split {odd[0]}); give all of "
                    "them the same corpus."
                )


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
