"""What the division of the loss writes: a record, a table and a plot."""

import math
import os
from collections.abc import Sequence
from typing import Any

from unrolled.analyse.loss_parts.measure import CATEGORIES, LossParts, LossPartsConfig
from unrolled.analyse.plots import COLOURS, draw, plots_wanted, tsv
from unrolled.core.files import atomic_write, make_folder, write_json
from unrolled.core.record import environment

__all__ = ["loss_parts_record", "write_loss_parts"]

# told apart in print without colours, and by the colour-blind
_HATCHES = ("", "", "//", "", "..", "", "\\\\", "xx")
_FILLS = (
    "#d9d9d9",
    *COLOURS[5:6],
    *COLOURS[6:7],
    *COLOURS[3:4],
    *COLOURS[4:5],
    *COLOURS[2:3],
    *COLOURS[1:2],
    "#ffffff",
)


def loss_parts_record(found: Sequence[LossParts], config: LossPartsConfig) -> dict[str, Any]:
    """Plain JSON values: settings, and of each run its totals and categories."""
    runs = []
    for one in found:
        total, counted = math.fsum(one.nats), math.fsum(one.count_nats)
        runs.append(
            {"name": one.name, **one.provenance, "nats": total, "count_model_nats": counted, "categories": one.table()}
        )
    return {
        "kind": "errors",
        "config": config.model_dump(mode="json"),
        "order_of_tests": list(CATEGORIES),
        "runs": runs,
        "environment": environment(),
    }


def write_loss_parts(folder: str | os.PathLike[str], record: dict[str, Any]) -> str | None:
    """Write record.json, errors.tsv and a bar for each run.

    Returns:
        None, or where matplotlib is not installed one sentence that says so; the plot is left out then.
    """
    path = make_folder(folder)
    write_json(path / "record.json", record)
    heads = ["run", "category", "tokens", "nats", "share", "count_model_nats"]
    rows = [(run["name"], name, *part.values()) for run in record["runs"] for name, part in run["categories"].items()]
    atomic_write(path / "errors.tsv", tsv(heads, rows))
    note = plots_wanted()
    if note is None:
        runs = record["runs"]
        draw(path / "errors", (6.3, 0.45 * len(runs) + 1.5), lambda figure: _fill(figure, runs))
    return note


def _fill(figure: Any, runs: Sequence[dict[str, Any]]) -> None:
    axes = figure.subplots()
    left = [0.0] * len(runs)
    for category, colour, hatch in zip(CATEGORIES, _FILLS, _HATCHES, strict=True):
        widths = [run["categories"][category]["nats"] / math.log(2) / run["tokens"] for run in runs]
        axes.barh(
            range(len(runs)), widths, left=left, height=0.7, color=colour, hatch=hatch, edgecolor="0.2", linewidth=0.4,
            label=category.replace("_", " "),
        )  # fmt: skip
        left = [a + b for a, b in zip(left, widths, strict=True)]
    counted = [run["count_model_nats"] / math.log(2) / run["tokens"] for run in runs]
    # a black stroke on a white one, seen on every colour
    axes.plot(counted, range(len(runs)), linestyle="", marker="|", markersize=16, markeredgewidth=4, color="white")
    axes.plot(counted, range(len(runs)), linestyle="", marker="|", markersize=14, color="black", label="count model")
    axes.set_yticks(range(len(runs)), [run["name"] for run in runs])
    axes.invert_yaxis()
    axes.set_xlabel("loss, bits per token")
    figure.legend(frameon=False, ncols=5, loc="outside upper center", fontsize=7)
