"""The figures of a report, drawn by matplotlib: systems, contrasts, searches, curves, training, pairs of seeds."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unrolled.analyse.plots import COLOURS, draw
from unrolled.compare.answer import Analysis
from unrolled.compare.quantiles import critical
from unrolled.compare.report.curves import add_legend, draw_curves, has_curves, looks
from unrolled.compare.report.parts import Drawn
from unrolled.compare.results import Found, SystemFound
from unrolled.compare.statistics import LEVEL
from unrolled.compare.verdicts import ContrastFound, bits, corpora_of, unit_of

__all__ = ["draw_figures"]

_WIDTH = 6.8
_VERDICT_COLOURS = {"better": "#009e73", "worse": "#d55e00", "equivalent": "#0072b2", "undecided": "#8a8a8a"}


def draw_figures(found: Found, analysis: Analysis, folder: Path, png: bool = False) -> list[Drawn]:
    """Draw into ``folder`` what there is to be drawn, each as SVG, and as PNG where ``png``.

    Raises:
        UnrolledError: matplotlib is not installed.
    """
    drawn = []
    for name, caption, plan in (
        ("seeds", "Every run as a dot, and the mean of its system with the 95 % interval over seeds.", _seeds),
        ("contrasts", "Differences with 95 % intervals. Shaded: what the plan says nobody cares about.", _contrasts),
        ("search", "What the search found; ringed: the chosen value, crosses at the top: diverged.", _search),
        ("curves", "Validation loss during training, mean over seeds and their range.", _curves),
        ("training", "Loss in training and on the validation split at the end, a dot a run.", _training),
        ("pairs", "The two systems of each contrast, a line a seed.", _pairs),
    ):
        planned = plan(found, analysis)
        if planned is not None:
            draw(folder / name, *planned, png=png)
            drawn.append(Drawn(name, caption))
    return drawn


Planned = tuple[tuple[float, float], Callable[[Any], None]] | None
"""Size in inches and what draws it; None where there is nothing to draw."""


def _losses(system: SystemFound) -> list[float]:
    return [bits(run.nats_per_token) for run in system.runs if run.nats_per_token is not None]


def _by_corpus(found: Found) -> dict[str, list[SystemFound]]:
    """Systems with finished runs, best first."""
    groups = {
        corpus: sorted(
            (s for s in found.systems if s.corpus == corpus and _losses(s)), key=lambda s: np.mean(_losses(s))
        )
        for corpus in corpora_of(found)
    }
    return {corpus: systems for corpus, systems in groups.items() if systems}


def _seeds(found: Found, analysis: Analysis) -> Planned:
    groups = _by_corpus(found)
    if not groups:
        return None

    def fill(figure: Any) -> None:
        ratios = [len(systems) for systems in groups.values()]
        panels = figure.subplots(len(groups), 1, squeeze=False, gridspec_kw={"height_ratios": ratios})[:, 0]
        for axes, (corpus, systems) in zip(panels, groups.items(), strict=True):
            for place, system in enumerate(systems):
                values = np.array(_losses(system))
                axes.plot(values, np.full(len(values), place), "o", color="#56b4e9", markersize=4, alpha=0.8)
                error = 0.0
                if len(values) > 1:
                    times = critical([(1.0, len(values) - 1)], (1 - LEVEL) / 2)
                    error = times * values.std(ddof=1) / len(values) ** 0.5
                axes.errorbar(values.mean(), place + 0.25, xerr=error, fmt="|", color=COLOURS[0], capsize=2)
            axes.set_yticks(range(len(systems)), [_label(system) for system in systems])
            axes.set_ylim(len(systems) - 0.4, -0.6)
            _titled(axes, found, corpus, f"validation, {unit_of(found, [corpus])}")

    return (_WIDTH, 0.9 * len(groups) + 0.3 * sum(map(len, groups.values()))), fill


def _label(system: SystemFound) -> str:
    lost = sum(run.status == "diverged" for run in system.runs)
    return f"{system.name} ({lost} diverged)" if lost else system.name


def _titled(axes: Any, found: Found, corpus: str, label: str) -> None:
    axes.set_xlabel(label)
    if len(corpora_of(found)) > 1:
        axes.set_title(corpus, loc="left")


def _contrasts(found: Found, analysis: Analysis) -> Planned:
    units: dict[str, list[ContrastFound]] = {}
    for row in analysis.contrasts:
        if row.found is not None and row.found.interval() is not None:
            units.setdefault(row.unit, []).append(row)
    if not units:
        return None

    def fill(figure: Any) -> None:
        ratios = [len(rows) for rows in units.values()]
        panels = figure.subplots(len(units), 1, squeeze=False, gridspec_kw={"height_ratios": ratios})[:, 0]
        for axes, (unit, rows) in zip(panels, units.items(), strict=True):
            axes.axvline(0, color="0.6", linewidth=0.8)
            for place, row in enumerate(rows):
                _forest_row(axes, row, place)
            several = len({row.corpora for row in rows}) > 1
            names = [f"{row.name}, {row.corpus}" if several else row.name for row in rows]
            axes.set_yticks(range(len(rows)), [f"{name}\n{row.verdict}" for name, row in zip(names, rows, strict=True)])
            axes.set_ylim(len(rows) - 0.4, -0.6)
            axes.set_xlabel(f"first less second, {unit}")

    return (_WIDTH, 0.9 * len(units) + 0.45 * sum(map(len, units.values()))), fill


def _forest_row(axes: Any, row: ContrastFound, place: int) -> None:
    assert row.found is not None
    if row.smallest is not None:
        axes.fill_betweenx(
            [place - 0.45, place + 0.45], -row.smallest, row.smallest, color="0.5", alpha=0.2, linewidth=0
        )
    low, high = row.found.interval() or (0.0, 0.0)
    colour, middle = _VERDICT_COLOURS[row.verdict], row.found.difference
    axes.errorbar(middle, place, xerr=[[middle - low], [high - middle]], fmt="o", color=colour, capsize=3, markersize=5)
    if row.bootstrap is not None:
        axes.plot(row.bootstrap, [place + 0.25] * 2, color="0.6", linewidth=0.8)


def _search(found: Found, analysis: Analysis) -> Planned:
    groups = {c: [s for s in found.systems if s.corpus == c and s.search] for c in corpora_of(found)}
    groups = {corpus: systems for corpus, systems in groups.items() if systems}
    if not groups:
        return None

    def fill(figure: Any) -> None:
        panels = figure.subplots(1, len(groups), squeeze=False)[0]
        for axes, (corpus, systems) in zip(panels, groups.items(), strict=True):
            tried = [one.value for system in systems for one in system.search]
            named = any(isinstance(value, str) for value in tried)
            places = {value: float(i) for i, value in enumerate(dict.fromkeys(tried))}
            for system in systems:
                _search_line(axes, system, looks(found)[system.name], places if named else None)
            if named:
                axes.set_xticks(list(places.values()), list(map(str, places)))
            else:
                numbers = sorted(set(map(float, tried)))
                if numbers[0] > 0:
                    axes.set_xscale("log")
                axes.set_xticks(numbers, [f"{value:g}" for value in numbers])
            axes.set_ylabel(f"validation, {unit_of(found, [corpus])}")
            _titled(axes, found, corpus, found.search_setting or "value")
        add_legend(figure)

    return (_WIDTH, 3.2), fill


def _search_line(axes: Any, system: SystemFound, shown_as: dict[str, Any], places: dict[Any, float] | None) -> None:
    at = [places[one.value] if places else float(one.value) for one in system.search]
    losses = np.array([bits(one.nats_per_token) for one in system.search])
    order = np.argsort(at)
    x, y = np.array(at)[order], losses[order]
    there, colour = np.isfinite(y), shown_as["color"]
    axes.plot(x[there], y[there], linewidth=1, label=_edge(system), **(shown_as | {"marker": ""}))
    for one, place, loss in zip(system.search, at, losses, strict=True):
        if np.isfinite(loss):
            face = "none" if one.edge else colour
            axes.plot(place, loss, shown_as["marker"], color=colour, markerfacecolor=face, markersize=4)
            if one.value == system.chosen:
                axes.plot(place, loss, "o", color=colour, markerfacecolor="none", markersize=10)
    lost = x[~there]
    axes.plot(lost, np.full(len(lost), 0.97), "x", color=colour, transform=axes.get_xaxis_transform())


def _edge(system: SystemFound) -> str:
    return f"{system.name} (at the edge)" if system.at_edge else system.name


def _curves(found: Found, analysis: Analysis) -> Planned:
    count = sum(has_curves(found, corpus) for corpus in corpora_of(found))
    return ((_WIDTH, 3.0 * count + 0.2), lambda figure: draw_curves(figure, found)) if count else None


def _training(found: Found, analysis: Analysis) -> Planned:
    def points(system: SystemFound) -> list[tuple[float, float]]:
        return [
            (bits(run.train_nats), bits(run.nats_per_token))
            for run in system.runs
            if run.train_nats is not None and run.nats_per_token is not None
        ]

    groups = {c: [s for s in systems if points(s)] for c, systems in _by_corpus(found).items()}
    groups = {corpus: systems for corpus, systems in groups.items() if systems}
    if not groups:
        return None

    def fill(figure: Any) -> None:
        panels = figure.subplots(1, len(groups), squeeze=False)[0]
        for axes, (corpus, systems) in zip(panels, groups.items(), strict=True):
            for system in systems:
                x, y = zip(*points(system), strict=True)
                axes.plot(x, y, markersize=4, label=system.name, **(looks(found)[system.name] | {"linestyle": ""}))
            axes.set_ylabel(f"validation, {unit_of(found, [corpus])}")
            _titled(axes, found, corpus, "training, last tenth")
        add_legend(figure)

    return (_WIDTH, 3.4), fill


def _pairs(found: Found, analysis: Analysis) -> Planned:
    of = {(system.name, system.corpus): system for system in found.systems}

    def lines(row: ContrastFound) -> list[tuple[float, float]]:
        sides: Sequence[dict[int, float]] = [
            {
                run.seed: bits(run.nats_per_token)
                for run in of[name, row.corpora[0]].runs
                if run.nats_per_token is not None
            }
            if (name, row.corpora[0]) in of
            else {}
            for name in (row.first, row.than)
        ]
        return [(sides[0][seed], sides[1][seed]) for seed in sorted(set(sides[0]) & set(sides[1]))]

    rows = [
        row for row in analysis.contrasts if len(row.corpora) == 1 and row.figure == "nats_per_token" and lines(row)
    ]
    if not rows:
        return None
    across = min(4, len(rows))
    down = -(-len(rows) // across)

    def fill(figure: Any) -> None:
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for axes, row in zip(panels, rows, strict=False):
            for pair in lines(row):
                axes.plot([0, 1], pair, "o-", color=COLOURS[2], markersize=3, linewidth=0.8, alpha=0.7)
            axes.set_xticks([0, 1], [row.first, row.than], rotation=20, ha="right", fontsize=7)
            axes.set_xlim(-0.3, 1.3)
            axes.set_title(f"{row.name}\n{row.corpus}", fontsize=8)
            axes.set_ylabel(row.unit, fontsize=7)
        for axes in panels[len(rows) :]:
            axes.set_visible(False)

    return (_WIDTH if across > 1 else 3.2, 2.4 * down), fill
