"""What the probe of units as features writes: a record, tables and a histogram."""

import math
import os
from typing import Any

import numpy as np

from unrolled.analyse.features.make import Features
from unrolled.analyse.plots import draw, plots_wanted
from unrolled.analyse.probe import LogisticFit, Measured
from unrolled.core.files import atomic_write, make_folder, write_json
from unrolled.core.record import environment

__all__ = ["features_record", "plot_histogram", "write_features"]

RECORD, UNITS, HISTOGRAM = "record.json", "units.tsv", "histogram"
# Okabe and Ito (2008), as in the other plots: the negative class hatched, the positive one plain
_LOOKS = ({"color": "#0072b2", "hatch": "////", "fill": False}, {"color": "#d55e00", "alpha": 0.6})


def features_record(features: Features) -> dict[str, Any]:
    """Plain JSON values."""
    best = features.best
    return {
        "kind": "features",
        "run": {"name": features.name, **features.provenance},
        "config": features.config.model_dump(mode="json"),
        "layer": features.layer,
        "state": features.state,
        "units": len(best.aucs),
        "sentences": features.sizes,
        "classes": {"negative": features.classes[0], "positive": features.classes[1]},
        "regression": _fit(features.regression),
        "bag_of_words": None if features.words is None else _fit(features.words),
        "best_unit": {
            "unit": best.unit,
            "tied": best.ties,
            "gap": float(best.gaps[best.unit]),
            "higher_when": features.classes[1 if best.sign > 0 else 0],
            "threshold": best.sign * best.threshold,
            "train": _measured(best.train),
            "test": _measured(best.test),
        },
        "environment": environment(),
    }


def _fit(fit: LogisticFit) -> dict[str, Any]:
    return {
        "strength": fit.strength,
        "strength_at_end": fit.at_end,
        "dev_accuracy": {f"{strength:g}": share for strength, share in fit.tried.items()},
        "nonzero_weights": fit.nonzero,
        "features": fit.features,
        "test": _measured(fit.test),
    }


def _measured(measured: Measured) -> dict[str, Any]:
    return {**measured._asdict(), "auc": None if math.isnan(measured.auc) else measured.auc}


def write_features(folder: str | os.PathLike[str], features: Features, record: dict[str, Any]) -> str | None:
    """Write record.json, units.tsv (best first), histogram.tsv, histogram.png and histogram.svg.

    Returns:
        None, or where matplotlib is not installed one sentence that says so; the plots are left out then.
    """
    path = make_folder(folder)
    write_json(path / RECORD, record)
    best, weights = features.best, features.regression.weights
    rows = [["unit", "auc_train", "gap_train", "auc_test", "weight"]]
    for unit in np.lexsort((-best.gaps, -best.aucs)).tolist():
        test = features.test_aucs[unit]
        rows.append([
            str(unit), f"{best.aucs[unit]:.6f}", f"{best.gaps[unit]:.6g}", f"{test:.6f}", f"{weights[unit]:.6g}"
        ])  # fmt: skip
    atomic_write(path / UNITS, "".join("\t".join(row) + "\n" for row in rows))
    lines = ["\t".join(["low", "high", *map(_plain, features.classes)])]
    edges = features.edges.tolist()
    for low, high, pair in zip(edges[:-1], edges[1:], features.counts.T.tolist(), strict=True):
        lines.append(f"{low:.9g}\t{high:.9g}\t{pair[0]}\t{pair[1]}")
    atomic_write(path / f"{HISTOGRAM}.tsv", "\n".join(lines) + "\n")
    note = plots_wanted()
    if note is None:
        plot_histogram(path / HISTOGRAM, features)
    return note


def _plain(text: str) -> str:
    return " ".join(text.split())


def plot_histogram(path: str | os.PathLike[str], features: Features) -> None:
    """The best unit's values on the test sentences, by class, and its threshold.

    Args:
        path: of the files, without ``.png`` and ``.svg``.
    Raises:
        UnrolledError: matplotlib is not installed.
    """
    best = features.best

    def fill(figure: Any) -> None:
        axes = figure.subplots()
        for name, counts, look in zip(features.classes, features.counts, _LOOKS, strict=True):
            axes.stairs(counts, features.edges, label=f"label {name}", **({"fill": True, **look}))
        axes.axvline(best.sign * best.threshold, color="0.2", linewidth=1, linestyle="--", label="threshold")
        axes.set_xlabel(f"{features.state} of unit {best.unit}, layer {features.layer}")
        axes.set_ylabel("test sentences")
        axes.legend(frameon=False)

    draw(path, (6.3, 3.4), fill)
