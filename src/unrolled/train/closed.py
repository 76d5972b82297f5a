"""Runs of tasks that are solved at once: nothing is trained step by step."""

from pathlib import Path

from unrolled.runs import CONFIG
from unrolled.task import ClosedTask, Evaluation
from unrolled.train.budget import Clock
from unrolled.train.progress import Progress
from unrolled.train.record import Spent, write_record
from unrolled.train.report import Reporter

__all__ = ["fit_run"]


def fit_run(task: ClosedTask, out: Path, report: Reporter, clock: Clock) -> None:
    """Solve, write the run, score the validation split.

    Args:
        out: the run directory, which exists and holds no run.
    Raises:
        UsageError, UnrolledError: in one sentence, whatever is wrong with the data or the options.
    """
    model = task.solve(report.note)
    task.keep(model, out)
    task.save(out)
    task.config.save(out / CONFIG)  # last: the folder is a run from here on
    progress = Progress(
        checksums={name: split.checksum for name, split in task.splits.items()}, tokens=len(task.splits["train"])
    )
    write_record(out, task, model, "finished", progress, Spent(clock.wall(), clock.cpu()), {})
    if "valid" not in task.splits:
        return
    exact = task.evaluate(model, task.splits["valid"], Evaluation("valid"), report.score)
    write_record(out, task, model, "finished", progress, Spent(clock.wall(), clock.cpu()), {}, exact)
