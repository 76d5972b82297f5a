"""The probe of reading in figures, and what it writes: a record, tables and a plot."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from unrolled.analyse.plots import COLOURS, MARKERS, draw, plots_wanted, tsv
from unrolled.analyse.reading.measure import ReadingConfig, ReadingUse
from unrolled.analyse.reading.regression import mean_over
from unrolled.core.files import atomic_write, make_folder, write_json
from unrolled.core.record import environment

__all__ = ["reading_record", "write_reading"]


def reading_record(found: Sequence[ReadingUse], config: ReadingConfig, about: dict[str, Any]) -> dict[str, Any]:
    """Plain JSON values: settings, what was regressed, and of each run what its surprisal is worth.

    ``gain`` is in nats per measured word, held out, with its 95 % interval (null where there are too few texts);
    ``less_than_first`` how much the first run's gain is above it. ``perplexity`` is that of a word of the texts, line
    ends aside. ``coefficients`` are those of the fit to all texts, with standard errors.

    Args:
        about: plain JSON values: table, columns, frequency.
    """
    runs, baseline = [], found[0]
    for number, one in enumerate(found):
        gains = [full - base for full, base in zip(one.full, one.baseline, strict=True)]
        words = sum(len(bits) for bits in one.surprisals.bits)
        used = sum(len(part) for part in gains)
        beside = [first - full for first, full in zip(baseline.full, one.full, strict=True)]
        runs.append({
            "name": one.name,
            **one.provenance,
            "words": words,
            "words_unknown": one.surprisals.unknown,
            "words_tokens": one.surprisals.tokens,
            "bits_per_word": one.surprisals.nats / math.log(2) / words,
            "perplexity": math.exp(one.surprisals.nats / words),
            "gain": mean_over(gains, config.resample)._asdict(),
            "less_than_first": None if number == 0 else mean_over(beside, config.resample)._asdict(),
            "gain_by_text": [float(part.mean()) for part in gains],
            "gain_fitted": (one.fit.log_likelihood - one.baseline_fit.log_likelihood) / used,
            "coefficients": [
                {"name": name, "coefficient": float(value), "error": float(error)}
                for name, value, error in zip(one.names, one.fit.coefficients, one.fit.errors, strict=True)
            ],
        })  # fmt: skip
    held = np.concatenate(baseline.baseline)
    return {
        "kind": "reading",
        "config": config.model_dump(mode="json"),
        **about,
        "texts": len(baseline.baseline),
        "words_measured": len(held),
        "baseline": {"log_likelihood_per_word": float(held.mean()), "variance": baseline.baseline_fit.variance},
        "runs": runs,
        "environment": environment(),
    }


def write_reading(folder: str | os.PathLike[str], record: dict[str, Any]) -> str | None:
    """Write record.json, gains.tsv, coefficients.tsv and the plot.

    Returns:
        None, or where matplotlib is not installed one sentence that says so; the plot is left out then.
    """
    path, runs = make_folder(folder), record["runs"]
    write_json(path / "record.json", record)
    head = ["run", "words", "perplexity", "gain", "low", "high", "fitted"]
    rows = [(r["name"], r["words"], r["perplexity"], *r["gain"].values(), r["gain_fitted"]) for r in runs]
    atomic_write(path / "gains.tsv", tsv(head, rows))
    rows = [(run["name"], *one.values()) for run in runs for one in run["coefficients"]]
    atomic_write(path / "coefficients.tsv", tsv(["run", "predictor", "coefficient", "error"], rows))
    note = plots_wanted()
    if note is None:
        draw(path / "reading", (6.3, 6.0), lambda figure: _fill(figure, runs))
    return note


def _fill(figure: Any, runs: Sequence[dict[str, Any]]) -> None:
    upper, lower = figure.subplots(2, 1)
    for i, run in enumerate(runs):
        look = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 5}
        gain = run["gain"]
        sides = [[0.0], [0.0]]
        if gain["low"] is not None:
            sides = [[gain["mean"] - gain["low"]], [gain["high"] - gain["mean"]]]
        upper.errorbar(
            [run["bits_per_word"]], [gain["mean"]], yerr=sides, capsize=3, linewidth=1, label=run["name"], **look
        )
        own = [one for one in run["coefficients"] if one["name"].startswith("surprisal")]
        places = [lag + 0.08 * (i - (len(runs) - 1) / 2) for lag in range(len(own))]
        values, errors = ([one[of] for one in own] for of in ("coefficient", "error"))
        lower.errorbar(places, values, yerr=[1.96 * error for error in errors], capsize=2, linestyle="none", **look)
    lower.set_xticks(range(len([one for one in runs[0]["coefficients"] if one["name"].startswith("surprisal")])))
    for axes in (upper, lower):
        axes.axhline(0, color="0.6", linewidth=0.6)
    upper.set_xlabel("bits per word of the texts (base-2 logarithm of the perplexity)")
    upper.set_ylabel("gain, nats per word, held out")
    upper.legend(frameon=False)
    lower.set_xlabel("words back")
    lower.set_ylabel("effect of one bit of surprisal")
