"""Curves of validation during training, by tokens read and by CPU seconds."""

from typing import Any

import numpy as np

from unrolled.analyse.plots import COLOURS, MARKERS, STYLES
from unrolled.compare.results import Found, SystemFound
from unrolled.compare.verdicts import bits, corpora_of, unit_of

__all__ = ["add_legend", "draw_curves", "has_curves", "looks", "mean_curve"]


def looks(found: Found) -> dict[str, dict[str, Any]]:
    """Colour, dashes and marker of every system, the same in all figures: no two of 49 have all alike."""
    names = dict.fromkeys(system.name for system in found.systems)
    return {
        name: {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": STYLES[(i + i // len(COLOURS)) % len(STYLES)],
            "marker": MARKERS[(i + i // len(COLOURS)) % len(MARKERS)],
        }
        for i, name in enumerate(names)
    }


def add_legend(figure: Any) -> None:
    """One for all panels, below them, since there may be many systems."""
    found = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=7)


def has_curves(found: Found, corpus: str) -> bool:
    """Whether there is a curve to draw."""
    return any(mean_curve(system) is not None for system in found.systems if system.corpus == corpus)


def mean_curve(system: SystemFound) -> np.ndarray | None:
    """(points, 5): tokens and CPU seconds, means over finished runs; bits: mean, least and greatest over them.

    Runs of one system are validated at the same tokens; where one has more points the others' count is kept.
    """
    curves = [run.curve for run in system.runs if run.status == "finished" and run.curve]
    if not curves:
        return None
    count = min(map(len, curves))
    values = np.array([[(p.tokens, p.cpu_seconds, bits(p.nats_per_token)) for p in curve[:count]] for curve in curves])
    mean = values.mean(0)
    return np.column_stack([mean, values[:, :, 2].min(0), values[:, :, 2].max(0)])


def draw_curves(figure: Any, found: Found) -> None:
    """A row a corpus: against tokens, and against CPU seconds."""
    corpora = [corpus for corpus in corpora_of(found) if has_curves(found, corpus)]
    panels = figure.subplots(len(corpora), 2, squeeze=False, sharey="row")
    for row, corpus in zip(panels, corpora, strict=True):
        curves = {s.name: mean_curve(s) for s in found.systems if s.corpus == corpus}
        shown = {name: curve for name, curve in curves.items() if curve is not None}
        for column, (axes, label) in enumerate(zip(row, ("tokens read", "CPU seconds"), strict=True)):
            for name, curve in shown.items():
                shown_as = looks(found)[name] | {"marker": ""}
                axes.plot(curve[:, column], curve[:, 2], label=name, linewidth=1.2, **shown_as)
                band = {"color": shown_as["color"], "alpha": 0.15, "linewidth": 0}
                axes.fill_between(curve[:, column], curve[:, 3], curve[:, 4], **band)
            # the first validations are far above all that matters later
            last = np.concatenate([curve[len(curve) // 3 :, 3:5].ravel() for curve in shown.values()])
            margin = 0.05 * (last.max() - last.min()) + 1e-3
            axes.set_ylim(last.min() - margin, last.max() + margin)
            axes.set_xlabel(label)
        row[0].set_ylabel(f"validation, {unit_of(found, [corpus])}")
        if len(corpora) > 1:
            row[0].set_title(corpus, loc="left")
    add_legend(figure)
