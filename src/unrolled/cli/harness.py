"""``unrolled eval --harness``."""

from pathlib import Path
from typing import TYPE_CHECKING

from unrolled.cli.common import emit, table

if TYPE_CHECKING:
    from unrolled.predict import PredictorConfig
    from unrolled.runs import Run

__all__ = ["OF_HARNESS", "measure_harness"]

OF_HARNESS = (
    "run", "harness", "include_path", "limit", "prepare", "temperature", "dynamic", "cache", "samples", "quantize",
    "predict", "settings", "weights", "dtype", "record", "threads", "device", "backend", "precision", "json",
)  # fmt: skip
"""The options that tasks of the harness are measured by."""


def measure_harness(
    run: "Run",
    tasks: str | None,
    include: Path | None,
    limit: int | None,
    prepare: str | None,
    predict: "PredictorConfig",
    dtype: str,
    record: Path | None,
    json: bool,
) -> None:
    """Measure a run on tasks, and print or write what they gave.

    Raises:
        UsageError: no task is named, or an unknown one.
    """
    from unrolled.core.errors import UsageError
    from unrolled.core.files import write_json
    from unrolled.core.registry import unknown_name
    from unrolled.evaluate.of_run import DTYPES
    from unrolled.serve.harness import run_harness

    names = [name.strip() for name in (tasks or "").split(",") if name.strip()]
    if not names:
        raise UsageError("--include-path and --prepare are for --harness; name its tasks.")
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    found = run_harness(run, names, include, limit, prepare, predict, DTYPES[dtype])
    if record is not None:
        write_json(record, found)
    if json:
        emit(found)
        return
    rows = []
    for name, task in found["tasks"].items():
        figures = {
            **task["figures"],
            **({"ties": task["ties"], "accuracy, ties shared": task["accuracy_ties_shared"]} if "ties" in task else {}),
        }
        figures.pop("sample_len", None)
        rows += [
            (name, f"{task['samples']:,}", key, f"{value:,.4f}" if isinstance(value, float) else f"{value:,}")
            for key, value in figures.items()
        ]
    table(["task", "documents", "figure", ""], rows)
