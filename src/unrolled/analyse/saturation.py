"""How often gates are shut or open: the saturation fractions of Karpathy, Johnson and Fei-Fei (2015, section 4.3).

A gate of a unit is left-saturated at a token where its value is below 0.1, right-saturated where it is above 0.9; the
fractions are over the tokens of a text. A gate whose range is not 0 to 1 (a Mogrifier round, 0 to 2) is divided by the
upper end of its range first.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unrolled.analyse.passage import Passage
from unrolled.analyse.plots import draw, plots_wanted, tsv
from unrolled.analyse.tracing import sites, trace_passage
from unrolled.cells.taps import tap_name
from unrolled.core.errors import UsageError
from unrolled.core.files import atomic_write, make_folder, write_json
from unrolled.core.record import environment
from unrolled.data.walk import Progress
from unrolled.predict import NeuralPredictor

__all__ = ["GateUse", "Saturation", "measure_saturation", "saturation_record", "write_saturation"]

_PANELS = 4  # beside each other, as many as a printed page holds


class GateUse(NamedTuple):
    """Of each unit of a gate, over the tokens: the shares below and above the thresholds, and the mean, (units,)."""

    left: np.ndarray
    right: np.ndarray
    mean: np.ndarray


class Saturation(NamedTuple):
    """name: of the run. low, high: the thresholds. gates: ``layer.name`` -> its use. provenance: plain JSON."""

    name: str
    low: float
    high: float
    gates: dict[str, GateUse]
    provenance: dict[str, Any]


def measure_saturation(
    predictor: NeuralPredictor,
    passage: Passage,
    low: float = 0.1,
    high: float = 0.9,
    progress: Progress | None = None,
) -> Saturation:
    """Fractions of every unit of every gate, in memory that does not grow with the passage.

    Raises:
        UsageError: a model without gates; thresholds out of order.
    """
    if not 0 < low < high < 1:
        raise UsageError(f"the thresholds need 0 < low < high < 1, not {low:g} and {high:g}.")
    gates = {key: n for key, n in sites(predictor).items() if _is_gate(key)}
    if not gates:
        cells = ", ".join(dict.fromkeys(cell.name for cell in predictor.model.stack.cells()))
        raise UsageError(f"the cell {cells} has no gates; give a model that has.")
    counts = {key: np.zeros((2, n), np.int64) for key, n in gates.items()}
    sums = {key: np.zeros(n) for key, n in gates.items()}
    for part in trace_passage(predictor, passage, lambda layer, name: f"{layer}.{name}" in gates, progress):
        for key, traced in part.values.items():
            value = traced / tap_name(key.split(".", 1)[1]).high
            counts[key][0] += (value < low).sum(0).cpu().numpy()
            counts[key][1] += (value > high).sum(0).cpu().numpy()
            sums[key] += value.double().sum(0).cpu().numpy()
    n = len(passage.ids)
    found = {key: GateUse(counts[key][0] / n, counts[key][1] / n, sums[key] / n) for key in gates}
    return Saturation("model", low, high, found, dict(passage.origin))


def _is_gate(key: str) -> bool:
    return tap_name(key.split(".", 1)[1]).role in ("gate", "decay")


def saturation_record(found: Sequence[Saturation]) -> dict[str, Any]:
    """Plain JSON values: of each run's gates the means over units, and how many units are mostly saturated."""
    runs = []
    for one in found:
        gates = {}
        for key, use in one.gates.items():
            gates[key] = {
                "units": len(use.mean),
                "left": float(use.left.mean()),
                "right": float(use.right.mean()),
                "mean": float(use.mean.mean()),
                "units_mostly_left": int((use.left > 0.5).sum()),
                "units_mostly_right": int((use.right > 0.5).sum()),
            }
        runs.append({"name": one.name, **one.provenance, "gates": gates})
    config = {"low": found[0].low, "high": found[0].high}
    return {"kind": "gates", "config": config, "runs": runs, "environment": environment()}


def write_saturation(folder: str | os.PathLike[str], found: Sequence[Saturation], record: dict[str, Any]) -> str | None:
    """Write record.json, gates.tsv (one row a unit) and for every run a scatter plot of its units.

    Returns:
        None, or where matplotlib is not installed one sentence that says so; the plots are left out then.
    """
    path = make_folder(folder)
    write_json(path / "record.json", record)
    rows = [
        (one.name, *key.split(".", 1), unit, float(use.left[unit]), float(use.right[unit]), float(use.mean[unit]))
        for one in found
        for key, use in one.gates.items()
        for unit in range(len(use.mean))
    ]
    atomic_write(path / "gates.tsv", tsv(["run", "layer", "gate", "unit", "left", "right", "mean"], rows))
    note = plots_wanted()
    if note is None:
        for i, one in enumerate(found):
            _plot(path / ("gates" if len(found) == 1 else f"gates-{i + 1}"), one)
    return note


def _plot(path: Path, one: Saturation) -> None:
    """A panel for each gate, each layer in rows of its own: the units by their right and left fractions."""
    layers = sorted({int(key.split(".", 1)[0]) for key in one.gates})
    of_layers = [[key for key in one.gates if key.startswith(f"{layer}.")] for layer in layers]
    rows = [keys[i : i + _PANELS] for keys in of_layers for i in range(0, len(keys), _PANELS)]
    columns = max(map(len, rows))

    def fill(figure: Any) -> None:
        panels = figure.subplots(len(rows), columns, sharex=True, sharey=True, squeeze=False)
        for row, keys in zip(panels, rows, strict=True):
            for axes, key in zip(row, keys, strict=False):
                use = one.gates[key]
                axes.plot([0, 1], [1, 0], color="0.75", linewidth=0.6)
                # no edge, part transparent: dense places look dark in print too
                axes.scatter(use.right, use.left, s=9, color="#0072b2", alpha=0.4, linewidth=0)
                axes.set_title(key, fontsize=9)
                axes.set_aspect("equal")
                axes.set_xlim(-0.02, 1.02)
                axes.set_ylim(-0.02, 1.02)
            for axes in row[len(keys) :]:
                axes.set_axis_off()
            row[0].set_ylabel(f"share of tokens below {one.low:g}")
        figure.supxlabel(f"share of tokens above {one.high:g}, {one.name}", fontsize=9)

    draw(path, (max(3.0, 1.9 * columns + 0.4), 2.3 * len(rows) + 0.4), fill)
