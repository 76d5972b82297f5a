"""What the recovery probe writes: a record, a table of the curves and a plot."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from unrolled.analyse.plots import COLOURS, STYLES, draw, plots_wanted
from unrolled.analyse.recovery.figures import Summary, recovery_differences, why_unpaired
from unrolled.analyse.recovery.measure import Recovery
from unrolled.core.files import atomic_write, make_folder, write_json
from unrolled.core.record import environment

__all__ = ["plot_recovery", "recovery_record", "write_recovery"]

RECORD, CURVES, PLOT = "record.json", "recovery.tsv", "recovery"


def recovery_record(recoveries: Sequence[Recovery], summaries: Sequence[Summary]) -> dict[str, Any]:
    """Plain JSON values: settings, figures of each run, and of each but the first its difference from the first."""
    runs, differences = [], []
    for recovery, summary in zip(recoveries, summaries, strict=True):
        figures = {name: figure._asdict() for name, figure in summary.figures.items()}
        runs.append({"name": recovery.name, **recovery.provenance, "figures": figures})
    for recovery, summary in zip(recoveries[1:], summaries[1:], strict=True):
        why = why_unpaired(recoveries[0], recovery)
        found = None
        if why is None:
            found = {name: f._asdict() for name, f in recovery_differences(summaries[0], summary).items()}
        differences.append({"name": recovery.name, "less": recoveries[0].name, "figures": found, "unpaired": why})
    return {
        "kind": "recovery",
        "config": recoveries[0].config.model_dump(mode="json"),
        "runs": runs,
        "differences": differences,
        "environment": environment(),
    }


def write_recovery(
    folder: str | os.PathLike[str],
    recoveries: Sequence[Recovery],
    summaries: Sequence[Summary],
    record: dict[str, Any],
) -> str | None:
    """Write record.json, recovery.tsv, recovery.png and recovery.svg.

    Returns:
        None, or where matplotlib is not installed one sentence that says so; the plots are left out then.
    """
    path = make_folder(folder)
    write_json(path / RECORD, record)
    atomic_write(path / CURVES, _table([recovery.name for recovery in recoveries], summaries))
    note = plots_wanted()
    if note is None:
        plot_recovery(path / PLOT, [recovery.name for recovery in recoveries], summaries)
    return note


def _table(names: Sequence[str], summaries: Sequence[Summary]) -> str:
    """One line a run and lag; a run with fewer layers than another leaves cells empty."""
    curves = list(dict.fromkeys(curve for summary in summaries for curve in summary.curves))
    heads = [f"{curve}{end}" for curve in curves for end in ("", ", low", ", high")]
    lines = ["\t".join(["run", "lag", *heads])]
    for name, summary in zip(names, summaries, strict=True):
        for lag in range(len(summary.curves["excess"])):
            cells = []
            for curve in curves:
                found = summary.curves.get(curve)
                cells += ["", "", ""] if found is None else [f"{value:.9g}" for value in found[lag]]
            lines.append("\t".join([name, str(lag), *cells]))
    return "\n".join(lines) + "\n"


def plot_recovery(path: str | os.PathLike[str], names: Sequence[str], summaries: Sequence[Summary]) -> None:
    """Excess loss and correlation against the lag, one line a run in a band that is its interval.

    Args:
        path: of the files, without ``.png`` and ``.svg``.
    Raises:
        UnrolledError: matplotlib is not installed.
    """

    def fill(figure: Any) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True)
        for i, (name, summary) in enumerate(zip(names, summaries, strict=True)):
            look = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)]}
            for axes, curve in ((upper, "excess"), (lower, "correlation")):
                mean, low, high = summary.curves[curve].T
                lags = np.arange(len(mean))
                axes.plot(lags, mean, label=name, linewidth=1.4, **look)
                axes.fill_between(lags, low, high, color=look["color"], alpha=0.15, linewidth=0)
        # logarithmic down to a hundredth of a bit and linear below, where means lie on both sides of zero
        upper.set_yscale("symlog", linthresh=0.01, linscale=0.5)
        upper.axhline(0, color="0.6", linewidth=0.6)
        upper.set_ylabel("excess loss, bits per token")
        upper.legend(frameon=False)
        lower.set_xscale("symlog", linthresh=1, linscale=0.5)
        lower.set_xlim(0, max(len(summary.curves["excess"]) for summary in summaries) - 1)
        ticks = [lag for lag in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if lag <= lower.get_xlim()[1]]
        lower.set_xticks(ticks, [str(lag) for lag in ticks])
        lower.set_xticks([], minor=True)
        lower.set_ylabel("correlation with the uncorrupted state")
        lower.set_xlabel("lag, tokens after the corruption")

    draw(path, (6.3, 5.6), fill)
