"""The probe of memory in figures, and what it writes: a record, tables and a plot."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from unrolled.analyse.intervals import mean_intervals
from unrolled.analyse.memory.measure import MemoryUse
from unrolled.analyse.plots import COLOURS, STYLES, draw, plots_wanted, tsv
from unrolled.core.files import atomic_write, make_folder, write_json
from unrolled.core.record import environment

__all__ = ["memory_record", "write_memory_use"]


def _first_below(curve: np.ndarray, level: float) -> int | None:
    """The first index from which on a curve is below a level, or None where it never gets there."""
    below = np.flatnonzero(curve < level)
    return int(below[0]) if len(below) else None


def memory_record(found: Sequence[MemoryUse]) -> dict[str, Any]:
    """Plain JSON values: settings, and of each run the curves and what is read off them.

    ``effective_length`` is the smallest past tried from which on the mean excess is below the tolerance with its whole
    interval, null where none is. The gradient's lags are those at which its mean norm first falls below a half, a
    tenth and a hundredth of that at lag 1; a state's lag is where its autocorrelation first falls below 1/e; null: not
    within the lags.
    """
    runs = []
    for one in found:
        excess = (one.truncated - one.whole[:, None]) / math.log(2)
        contexts, tolerance = one.config.contexts(), one.config.tolerance
        points = mean_intervals(excess)
        short = [k for k, point in zip(contexts, points, strict=True) if point["high"] >= tolerance]
        enough = [k for k in contexts if k > max(short, default=0)]
        norm = one.gradients.mean(0)
        lags = {
            share: _first_below(norm, norm[0] / by) for share, by in (("half", 2), ("tenth", 10), ("hundredth", 100))
        }
        runs.append({
            "name": one.name,
            **one.provenance,
            "whole_bits": float(one.whole.mean() / math.log(2)),
            "effective_length": enough[0] if enough else None,
            "contexts": [{"context": k, **point} for k, point in zip(contexts, points, strict=True)],
            "gradient_lags": {share: None if lag is None else lag + 1 for share, lag in lags.items()},
            "gradients": [{"lag": j + 1, **point} for j, point in enumerate(mean_intervals(one.gradients))],
            "autocorrelation_lags": {
                key: _first_below(curve, 1 / math.e) for key, curve in one.autocorrelation.items()
            },
            "autocorrelation": {key: curve.tolist() for key, curve in one.autocorrelation.items()},
        })  # fmt: skip
    config = found[0].config.model_dump(mode="json")
    return {"kind": "memory", "config": config, "runs": runs, "environment": environment()}


def write_memory_use(folder: str | os.PathLike[str], record: dict[str, Any]) -> str | None:
    """Write record.json, contexts.tsv, gradients.tsv, autocorrelation.tsv and the plot.

    Returns:
        None, or where matplotlib is not installed one sentence that says so; the plot is left out then.
    """
    path, runs = make_folder(folder), record["runs"]
    write_json(path / "record.json", record)
    for name, column, heads in (
        ("contexts", "context", ["excess_bits", "low", "high"]),
        ("gradients", "lag", ["norm", "low", "high"]),
    ):
        rows = [(run["name"], *point.values()) for run in runs for point in run[name]]
        atomic_write(path / f"{name}.tsv", tsv(["run", column, *heads], rows))
    rows = [
        (run["name"], *key.split(".", 1), lag, value)
        for run in runs
        for key, curve in run["autocorrelation"].items()
        for lag, value in enumerate(curve)
    ]
    atomic_write(path / "autocorrelation.tsv", tsv(["run", "layer", "internal", "lag", "autocorrelation"], rows))
    note = plots_wanted()
    if note is None:
        draw(path / "memory", (6.3, 7.6), lambda figure: _fill(figure, runs))
    return note


def _fill(figure: Any, runs: Sequence[dict[str, Any]]) -> None:
    upper, middle, lower = figure.subplots(3, 1)
    for i, run in enumerate(runs):
        look = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)]}
        for axes, name, at in ((upper, "contexts", "context"), (middle, "gradients", "lag")):
            points = run[name]
            places, mean, low, high = ([point[of] for point in points] for of in (at, "mean", "low", "high"))
            axes.plot(places, mean, label=run["name"], linewidth=1.4, **look)
            if axes is upper:  # an interval that reaches below zero has no place on a logarithmic axis
                axes.fill_between(places, low, high, color=look["color"], alpha=0.15, linewidth=0)
        for j, (key, curve) in enumerate(run["autocorrelation"].items()):
            width = 1.4 if key.endswith(".c") else 0.7
            lower.plot(range(1, len(curve)), curve[1:], linewidth=width, alpha=max(0.3, 1 - 0.2 * (j // 2)), **look)
    upper.set_xscale("log", base=2)
    # logarithmic down to a hundredth of a bit and linear below, where means lie on both sides of zero
    upper.set_yscale("symlog", linthresh=0.01, linscale=0.5)
    upper.axhline(0, color="0.6", linewidth=0.6)
    upper.set_xlabel("tokens of the past that are read")
    upper.set_ylabel("excess loss, bits")
    upper.legend(frameon=False)
    middle.set_xscale("log")
    middle.set_yscale("log")
    middle.set_ylim(bottom=max(middle.get_ylim()[0], 1e-10))
    middle.set_xlabel("lag, tokens")
    middle.set_ylabel("norm of the gradient")
    lower.set_xscale("log")
    lower.set_xlabel("lag, tokens")
    lower.set_ylabel("autocorrelation (c thick, h thin)")
