"""The recovery probe in figures: what a corruption costs in total, how long it lasts, and how sure that is.

Intervals are 95 % percentile intervals of a bootstrap over places (Efron 1979): as many places are drawn with
replacement, the mean curves are formed anew, and every figure is read off them. Runs that were corrupted alike at the
same places are drawn alike, so that the intervals of their differences are paired. What varies between training runs
(seeds) is not in these intervals.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from unrolled.analyse.recovery.measure import Recovery
from unrolled.core.random import RandomStreams

__all__ = ["Figure", "Summary", "labels", "recovery_differences", "summarise_recovery", "why_unpaired"]

SHOWN_LAGS = (0, 1, 2, 5, 10, 20, 50, 100, 200)
_SHARES = {"half": 0.5, "tenth": 0.1}
_LIKENESSES = (0.9, 0.99)
_DRAWS, _TAIL = 2000, 0.025
_AT_ONCE = 100


class Figure(NamedTuple):
    """A figure and its 95 % interval. A lag is None where the curve does not get there within the lags measured; so
    are the ends of its interval."""

    value: float | None
    low: float | None
    high: float | None


class Summary(NamedTuple):
    """figures: by name. curves: name -> (lags + 1, 3), the mean over places and its interval's ends.

    Curves are ``excess`` (bits) and, of the raw last output, ``correlation`` and ``cosine``; those of the layers are
    ``correlation, layer 1`` and so on. draws: figure's name -> (draws,), NaN where a drawn curve does not get there.
    """

    figures: dict[str, Figure]
    curves: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]


def labels(lags: int) -> dict[str, str]:
    """Name of every figure -> what it is, for readers."""
    return {
        **{f"excess_bits_{lag}": f"excess at lag {lag}, bits" for lag in SHOWN_LAGS if lag <= lags},
        "total_bits": f"excess in total, lags 0 to {lags}, bits",
        "half_lag": "excess below half of lag 0, lag",
        "tenth_lag": "excess below a tenth of lag 0, lag",
        **{f"correlation_{level}_lag": f"correlation above {level}, lag" for level in _LIKENESSES},
    }


def summarise_recovery(recovery: Recovery) -> Summary:
    """Means over places, figures read off them, and intervals."""
    measured = {"excess": recovery.excess}
    for name, by_site in (("correlation", recovery.correlation), ("cosine", recovery.cosine)):
        measured |= {name if site == "output" else f"{name}, {site}": values for site, values in by_site.items()}
    seed = RandomStreams(recovery.config.seed).key("recovery bootstrap")
    drawn = {name: _redraw(values, seed) for name, values in measured.items()}
    curves = {}
    for name, values in measured.items():
        low, high = _ends(drawn[name])
        curves[name] = np.stack([values.mean(0), low, high], 1)
    point = _read_off(measured["excess"].mean(0)[None], measured["correlation"].mean(0)[None])
    draws = _read_off(drawn["excess"], drawn["correlation"])
    return Summary({name: _figure(point[name][0], draws[name]) for name in point}, curves, draws)


def why_unpaired(first: Recovery, second: Recovery) -> str | None:
    """Why two runs were not corrupted alike, None if they were."""
    for key, what in (("text_sha256", "another text"), ("tokenizer", "other tokens")):
        if first.provenance.get(key) != second.provenance.get(key):
            return f"{second.name} reads {what} than {first.name}"
    if first.config.model_dump(exclude={"batch", "columns"}) != second.config.model_dump(exclude={"batch", "columns"}):
        return f"{second.name} was measured with other settings than {first.name}"
    return None


def recovery_differences(first: Summary, second: Summary) -> dict[str, Figure]:
    """Every figure of the second run less that of the first, for runs that were corrupted alike.

    An interval is left out where more than one in a hundred pairs of drawn curves do not get there.
    """
    found = {}
    for name, figure in second.figures.items():
        before = first.figures[name].value
        value = math.nan if figure.value is None or before is None else figure.value - before
        draws = second.draws[name] - first.draws[name]
        missing = np.isnan(draws)
        if math.isnan(value) or missing.mean() > 0.01:
            found[name] = Figure(None if math.isnan(value) else value, None, None)
        else:
            found[name] = _figure(value, draws[~missing])
    return found


def _redraw(values: np.ndarray, seed: int) -> np.ndarray:
    """Means of redrawn places. values: (P, time); returns (draws, time). Equal seeds and P draw alike."""
    rng, count = np.random.default_rng(seed), len(values)
    means = []
    for _ in range(0, _DRAWS, _AT_ONCE):
        times = rng.multinomial(count, np.full(count, 1 / count), _AT_ONCE)
        means.append(times @ values / count)
    return np.concatenate(means)


def _ends(draws: np.ndarray) -> tuple[Any, Any]:
    """Both ends of the interval over dimension 0; NaN (not reached) counts as beyond every lag."""
    ordered = np.sort(draws, 0)  # NaN last
    cut = int(_TAIL * len(ordered))
    return ordered[cut], ordered[len(ordered) - 1 - cut]


def _figure(value: float, draws: np.ndarray) -> Figure:
    low, high = _ends(draws)
    return Figure(*(None if math.isnan(x) else float(x) for x in (value, low, high)))


def _read_off(excess: np.ndarray, correlation: np.ndarray) -> dict[str, np.ndarray]:
    """Every figure of mean curves (n, lags + 1): name -> (n,)."""
    figures = {f"excess_bits_{lag}": excess[:, lag] for lag in SHOWN_LAGS if lag < excess.shape[1]}
    figures["total_bits"] = excess.sum(1)
    start = excess[:, :1]
    for name, share in _SHARES.items():
        # where the corruption costs nothing at first there is nothing to fall from
        figures[f"{name}_lag"] = _first((excess < share * start) & (start > 0))
    for level in _LIKENESSES:
        figures[f"correlation_{level}_lag"] = _first(correlation > level)
    return figures


def _first(reached: np.ndarray) -> np.ndarray:
    """Index of the first true value of each row, NaN where there is none."""
    return np.where(reached.any(1), reached.argmax(1).astype(float), math.nan)
