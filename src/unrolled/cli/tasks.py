"""``unrolled eval`` of a run whose task is no language model."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from unrolled.cli.common import emit, progress_bar, table

if TYPE_CHECKING:
    from unrolled.runs import Run

__all__ = ["OF_TASKS", "check_alone", "measure_task"]

OF_TASKS = ("run", "corpus", "split", "limit", "record", "weights", "threads", "device", "backend", "precision", "json")
"""The options that such a run is measured by."""


def measure_task(
    run: "Run", corpus: str | None, split: str, limit: int | None, record: Path | None, json: bool
) -> None:
    """Measure a run by its task's own figures, and print them.

    Args:
        record: file for the JSON record.
    """
    from unrolled.core.files import write_json
    from unrolled.tasks.measure import evaluate_task

    with progress_bar(f"measuring {split}", not json) as advance:
        result = evaluate_task(run, corpus, split, limit, advance)
    if record is not None:
        write_json(record, result.to_json())
    if json:
        emit(result.to_json())
        return
    table(["", f"{result.provenance.get('corpus', run.config.task.name)} {split}"], result.rows())


def check_alone(context: typer.Context, *read: str, why: str) -> None:
    """Raises UsageError for options beside those that are read, where another protocol takes the place of a language
    model's."""
    from unrolled.core.errors import UsageError

    for name in context.params:
        source = context.get_parameter_source(name)
        # by name, because releases of typer differ in whose class it is
        if name not in read and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{why}; leave out {_flag(name)}.")


def _flag(name: str) -> str:
    names = {"record": "out", "settings": "set"}
    return f"--{names.get(name, name).replace('_', '-')}"
