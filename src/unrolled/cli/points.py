"""``unrolled eval`` of a run of a synthetic problem at points."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unrolled.cli.common import emit, progress_bar, table

if TYPE_CHECKING:
    from unrolled.evaluate.points import Figures
    from unrolled.runs import Run

__all__ = ["OF_POINTS", "measure_at", "read_points"]

OF_POINTS = (
    "run", "points", "rows", "free", "split", "record", "weights", "threads", "device", "backend", "precision", "json",
)  # fmt: skip
"""The options that go with points."""

_ROWS = 1000
# Values of a group that a table shows; of more the record has all.
_SHOWN = 32


def read_points(texts: list[str]) -> list[dict[str, Any]]:
    """All combinations of what ``name=value,value,...`` say; without any, the one point that is the run's own.

    Raises:
        UsageError: another form, or a name twice.
    """
    from unrolled.core.config import parse_setting
    from unrolled.core.errors import UsageError

    axes: dict[str, list[Any]] = {}
    for text in texts:
        name, sign, values = text.partition("=")
        if not sign or not name or name in axes or not all(value.strip() for value in values.split(",")):
            raise UsageError(f"--points needs the form name=value,value,... once a name (got {text[:80]!r}).")
        axes[name] = [parse_setting(f"{name}={value.strip()}")[1] for value in values.split(",")]
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]


def measure_at(
    run: "Run", texts: list[str], rows: int | None, free: bool, split: str, record: Path | None, json: bool
) -> None:
    """Measure a run at points, and print a line for each; of one point the groups too, which record and JSON always
    have.

    Raises:
        UsageError: a run of another task, or a point that its problem cannot be at.
    """
    from unrolled.core.errors import UsageError
    from unrolled.core.files import write_json
    from unrolled.core.random import RandomStreams
    from unrolled.core.registry import unknown_name
    from unrolled.evaluate.points import measure_points
    from unrolled.tasks.made import Made

    task = run.task
    if not isinstance(task, Made):
        raise UsageError(f"{run.path} is {task.noun}; --points, --rows and --free are for runs of the task made.")
    if split not in task.splits:
        raise unknown_name("split", split, task.splits)
    if free and not task.problem.fed:
        raise UsageError(
            f"the answers of {task.problem.config.name} are not among its inputs, so that no model can run on its own; "
            "leave out --free."
        )
    points, count = read_points(texts), rows or _ROWS
    with progress_bar("measuring", not json) as advance:
        results = measure_points(
            run.model, task.problem, points, count, RandomStreams(run.config.seed), split, free,
            task.apart, lambda number, done: advance(number * count + done, len(points) * count, 0.0),
        )  # fmt: skip
    value = {
        "kind": "points", "version": 1, "problem": task.problem.config.model_dump(mode="json"), "split": split,
        "free": free, "chance": task.problem.chance(), "points": [result.to_json() for result in results],
        "provenance": run.provenance(),
    }  # fmt: skip
    if record is not None:
        write_json(record, value)
    if json:
        emit(value)
        return
    _print(task.problem.config.name, {_name(result.point): result.figures for result in results})
    if len(results) == 1:
        for name, found in results[0].groups.items():
            if len(found) <= _SHOWN:
                _print(name, {str(value): figures for value, figures in found.items()})


def _name(point: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in point.items()) or "as trained"


def _print(title: str, rows: "dict[str, Figures]") -> None:
    last = ["rows all right"] if all(one.exact is not None for one in rows.values()) else ["excess nats", "legal"]
    lines = [
        [name, f"{one.rows:,}", _share(one.accuracy), *_last(one), f"{one.nats:.4f}"] for name, one in rows.items()
    ]
    table([title, "rows", "accuracy", *last, "nats"], lines)


def _last(figures: "Figures") -> list[str]:
    if figures.exact is not None:
        return [_share(figures.exact)]
    return [f"{figures.excess:.4f} +- {figures.error:.4f}", _share(figures.legal)]


def _share(share: Any) -> str:
    return f"{share.value:.4f} ({share.low:.3f} to {share.high:.3f})"
