"""The probe of length in figures, and what it writes: a record, tables and a plot."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from unrolled.analyse.intervals import mean_intervals
from unrolled.analyse.length.measure import LengthUse
from unrolled.analyse.plots import COLOURS, STYLES, draw, plots_wanted, tsv
from unrolled.core.files import atomic_write, make_folder, write_json
from unrolled.core.record import environment

__all__ = ["length_record", "write_length_use"]


def _bins(one: LengthUse) -> list[tuple[int, int]]:
    """Positions from 0, low <= position < high, between the points at which norms are taken."""
    points = one.config.points()
    return list(zip([0, *points[:-1]], points, strict=True))


def _by_position(one: LengthUse) -> list[dict[str, Any]]:
    """Of each bin its positions, bits, and what length costs there: null where the past is within what was trained."""
    found = []
    for low, high in _bins(one):
        bits = one.nats[:, low:high].mean(1, keepdims=True) / math.log(2)
        excess = (one.nats - one.near)[:, low:high] / math.log(2)
        known = ~np.isnan(excess).any(0)
        beyond = low >= one.config.trained and known.any()
        cost = mean_intervals(excess[:, known].mean(1, keepdims=True))[0] if beyond else None
        found.append({"from": low + 1, "to": high, **mean_intervals(bits)[0], "excess": cost})
    return found


def length_record(found: Sequence[LengthUse]) -> dict[str, Any]:
    """Plain JSON values: settings, and of each run the curves and what is read off them.

    ``bins`` has the bits of the tokens at positions ``from`` to ``to``, and their ``excess`` over the same tokens after
    a past within the trained length, each with its 95 % interval over the stretches. ``loss_out`` is the first position
    of the first bin whose whole interval of the excess lies above the tolerance, null where there is none. ``norms``
    are means over the stretches, of the head with the largest at the end; ``norm_out`` is the first of ``points`` at
    which any is above ``factor`` times its largest within the trained length.
    """
    runs = []
    for one in found:
        points, bins = one.config.points(), _by_position(one)
        cost = [part for part in bins if part["excess"] is not None]
        out = [part["from"] for part in cost if part["excess"]["low"] > one.config.tolerance]
        norms, outside = {}, []
        for key, value in one.norms.items():
            mean = value.mean(0)  # (points, heads)
            within = mean[[i for i, point in enumerate(points) if point <= one.config.trained]].max(0)
            above = (mean > one.config.factor * within).any(1)
            outside += [point for point, is_out in zip(points, above.tolist(), strict=True) if is_out]
            norms[key] = mean[:, int(mean[-1].argmax())].tolist()
        runs.append({
            "name": one.name,
            **one.provenance,
            "trained": one.config.trained,
            "bins": bins,
            "loss_out": min(out, default=None),
            "points": points,
            "norms": norms,
            "norm_out": min(outside, default=None),
        })  # fmt: skip
    config = found[0].config.model_dump(mode="json", exclude={"trained"})
    return {"kind": "length", "config": config, "runs": runs, "environment": environment()}


def write_length_use(folder: str | os.PathLike[str], record: dict[str, Any]) -> str | None:
    """Write record.json, positions.tsv, norms.tsv and the plot.

    Returns:
        None, or where matplotlib is not installed one sentence that says so; the plot is left out then.
    """
    path, runs = make_folder(folder), record["runs"]
    write_json(path / "record.json", record)
    rows = []
    for run in runs:
        for part in run["bins"]:
            cost = part["excess"] or dict.fromkeys(("mean", "low", "high"))
            figures = (part["mean"], part["low"], part["high"], *cost.values())
            rows.append((run["name"], part["from"], part["to"], *figures))
    heads = ["bits", "low", "high", "excess_bits", "excess_low", "excess_high"]
    atomic_write(path / "positions.tsv", tsv(["run", "from", "to", *heads], rows))
    rows = [
        (run["name"], *key.split(".", 1), tokens, norm)
        for run in runs
        for key, values in run["norms"].items()
        for tokens, norm in zip(run["points"], values, strict=True)
    ]
    atomic_write(path / "norms.tsv", tsv(["run", "layer", "field", "tokens", "norm"], rows))
    note = plots_wanted()
    if note is None:
        draw(path / "length", (6.3, 7.6), lambda figure: _fill(figure, runs))
    return note


def _fill(figure: Any, runs: Sequence[dict[str, Any]]) -> None:
    upper, middle, lower = figure.subplots(3, 1, sharex=True)
    for i, run in enumerate(runs):
        look = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)]}
        for axes, parts in (
            (upper, [(part["to"], part) for part in run["bins"]]),
            (middle, [(part["to"], part["excess"]) for part in run["bins"] if part["excess"]]),
        ):
            places = [place for place, _ in parts]
            mean, low, high = ([part[of] for _, part in parts] for of in ("mean", "low", "high"))
            axes.plot(places, mean, label=run["name"], linewidth=1.4, **look)
            axes.fill_between(places, low, high, color=look["color"], alpha=0.15, linewidth=0)
        for values in run["norms"].values():
            lower.plot(run["points"], values, linewidth=0.8, **look)
    for axes in (upper, middle, lower):
        for length in sorted({run["trained"] for run in runs}):
            axes.axvline(length, color="0.6", linewidth=0.6)
        axes.set_xscale("log", base=2)
    upper.set_ylabel("loss, bits")
    upper.legend(frameon=False)
    middle.axhline(0, color="0.6", linewidth=0.6)
    middle.set_ylabel("excess over a trained past, bits")
    lower.set_yscale("log")
    lower.set_ylabel("norm of the state")
    lower.set_xlabel("position, tokens")
