r"""Which units follow a property of the text: correlation and mutual information, over the tokens of a text.

Pearson's correlation finds a unit that is a linear function of the property. Mutual information finds any: the
activations of a unit are put into bins of equal frequency, those of the property likewise, or each value into one of
its own where there are few; :math:`I = \sum_{ab} p_{ab} \log_2 (p_{ab} / p_a p_b)`. This plug-in estimate is too high
by about :math:`(A - 1)(B - 1) / (2 n \ln 2)` bits for A and B occupied bins and n independent tokens (Miller 1955), and
neighbouring tokens are not independent.
"""

import math
import os
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from unrolled.analyse.plots import COLOURS, STYLES, draw, plots_wanted, tsv
from unrolled.core.errors import UsageError
from unrolled.core.files import atomic_write, make_folder, write_json
from unrolled.core.record import environment

__all__ = ["UnitScores", "bin_units", "rank_units", "units_record", "write_units"]

_BINS = 16
# Shares of the range of values: neighbours closer than the first are of one heap, if it is no wider than the second.
_SAME, _HEAP = 1e-3, 1e-2


class UnitScores(NamedTuple):
    """Of one property and every unit, in falling order. property: its name. sites, units: (k,) where. correlation:
    (k,) signed. information: (k,) bits. entropy: bits of the binned property, which bounds the information. bias: bits
    by which it is too high at least, see above."""

    property: str
    sites: list[str]
    units: np.ndarray
    correlation: np.ndarray
    information: np.ndarray
    entropy: float
    bias: float


def correlation(activations: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each column of (n, units) with (n,); 0 for a column without variance."""
    x = activations.astype(np.float64)
    x -= x.mean(0)
    y = values - values.mean()
    length = np.sqrt(np.square(x).sum(0) * np.square(y).sum())
    return np.divide(y @ x, length, out=np.zeros(x.shape[1]), where=length > 1e-12 * len(y))


def binned(values: np.ndarray, bins: int = _BINS) -> np.ndarray:
    """Numbers (n,) of bins from 0: of the values themselves where there are at most ``bins``, else of equal frequency.

    Equal values share a bin. One that would fill a bin has one of its own, such as the zeros of a rectified unit.
    Values in narrow heaps with gaps between them, as those of a unit that counts, are equal within a heap.
    """
    values = _levels(values)
    found, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(found) <= bins:
        return number
    full = counts >= len(values) / bins
    before = np.cumsum(np.where(full, 0, counts)) - np.where(full, 0, counts)
    others = max(1, bins - int(full.sum()))
    shared = before * others // max(1, int(counts[~full].sum()))
    of_value = np.where(full, others + np.cumsum(full) - 1, shared)
    return np.unique(of_value[number], return_inverse=True)[1]


def _levels(values: np.ndarray) -> np.ndarray:
    """Numbers of levels in the place of values that lie in narrow heaps with gaps between them, as those of a unit that
    counts; other values as they are."""
    found, number = np.unique(values, return_inverse=True)
    wide = float(found[-1]) - float(found[0])
    level = np.concatenate([[0], np.cumsum(np.diff(found) > _SAME * wide)])
    first = np.searchsorted(level, np.arange(level[-1] + 1))
    widths = np.append(found[first[1:] - 1], found[-1]) - found[first]
    return level[number] if len(first) < len(found) and bool((widths <= _HEAP * wide).all()) else values


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Bits that two sequences (n,) of bin numbers tell about each other."""
    size = int(b.max()) + 1
    joint = np.bincount(a * size + b, minlength=(int(a.max()) + 1) * size).reshape(-1, size) / len(a)
    apart = joint.sum(1, keepdims=True) * joint.sum(0)
    seen = joint > 0
    return max(0.0, float((joint[seen] * np.log2(joint[seen] / apart[seen])).sum()))


def bin_units(activations: Mapping[str, np.ndarray], bins: int = _BINS) -> dict[str, np.ndarray]:
    """Bins of every unit's activations, (n, units) each."""
    return {
        site: np.stack([binned(column, bins).astype(np.int32) for column in matrix.T], 1)
        for site, matrix in activations.items()
    }


def rank_units(
    name: str,
    values: np.ndarray,
    activations: Mapping[str, np.ndarray],
    classes: Mapping[str, np.ndarray] | None = None,
    by: Literal["correlation", "information"] = "correlation",
    bins: int = _BINS,
) -> UnitScores:
    """Score every unit against a property and put the best first.

    Args:
        name: of the property. values: (n,). activations: ``layer.name`` -> (n, units).
        classes: :func:`bin_units` of them, which serves several properties; absent: made here.
        by: correlation (its absolute value) or information.
        bins: of the property, and of the activations where they are binned here.
    Raises:
        UsageError: a property that is the same at every token.
    """
    if not np.ptp(values):
        raise UsageError(
            f"the property {name} is {values[0]:g} at every token of this text; read another text or more of it."
        )
    classes = bin_units(activations, bins) if classes is None else classes
    of_property = binned(values, bins)
    sites, units, correlations, information = [], [], [], []
    most = 0
    for site, matrix in activations.items():
        correlations.append(correlation(matrix, values))
        for unit in range(matrix.shape[1]):
            own = classes[site][:, unit]
            most = max(most, int(own.max()) + 1)
            information.append(mutual_information(own, of_property))
        sites += [site] * matrix.shape[1]
        units.append(np.arange(matrix.shape[1]))
    r, bits = np.concatenate(correlations), np.array(information)
    order = np.argsort(-(np.abs(r) if by == "correlation" else bits), kind="stable")
    entropy = mutual_information(of_property, of_property)
    bias = (most - 1) * int(of_property.max()) / (2 * len(values) * math.log(2))
    named = [sites[i] for i in order]
    return UnitScores(name, named, np.concatenate(units)[order], r[order], bits[order], entropy, bias)


def units_record(
    found: list[UnitScores], top: int, provenance: dict[str, Any], config: dict[str, Any]
) -> dict[str, Any]:
    """Plain JSON values: the ``top`` units of every property."""
    properties = {}
    for one in found:
        rows = [
            {"internal": site, "unit": int(unit), "correlation": float(r), "information_bits": float(bits)}
            for site, unit, r, bits in zip(one.sites, one.units, one.correlation, one.information, strict=True)
        ][:top]
        properties[one.property] = {"entropy_bits": one.entropy, "bias_bits": one.bias, "units": rows}
    return {"kind": "units", "config": config, **provenance, "properties": properties, "environment": environment()}


def write_units(
    folder: str | os.PathLike[str],
    found: list[UnitScores],
    record: dict[str, Any],
    values: Mapping[str, np.ndarray],
    activations: Mapping[str, np.ndarray],
    shown: int = 400,
) -> str | None:
    """Write record.json, units.tsv (every unit), and for each property a plot of it and its best unit over tokens.

    Args:
        values: of each property, (n,). activations: see :func:`rank_units`. shown: tokens in a plot.
    Returns:
        None, or where matplotlib is not installed one sentence that says so; the plots are left out then.
    """
    path = make_folder(folder)
    write_json(path / "record.json", record)
    rows = [
        (one.property, rank + 1, *site.split(".", 1), int(unit), float(r), float(bits))
        for one in found
        for rank, (site, unit, r, bits) in enumerate(
            zip(one.sites, one.units, one.correlation, one.information, strict=True)
        )
    ]
    heads = ["property", "rank", "layer", "internal", "unit", "correlation", "information_bits"]
    atomic_write(path / "units.tsv", tsv(heads, rows))
    curves = []
    for one in found:
        own, unit = values[one.property], activations[one.sites[0]][:, one.units[0]]
        low = _busiest(own, shown)
        curves.append((one, low, own[low : low + shown], unit[low : low + shown]))
    lines = [
        (one.property, low + t, float(a), one.sites[0], int(one.units[0]), float(b))
        for one, low, own, unit in curves
        for t, (a, b) in enumerate(zip(own, unit, strict=True))
    ]
    heads = ["property", "token", "value", "internal", "unit", "activation"]
    atomic_write(path / "curves.tsv", tsv(heads, lines))
    note = plots_wanted()
    if note is None:
        draw(path / "units", (6.3, 1.5 * len(curves) + 0.5), lambda figure: _fill(figure, curves))
    return note


def _busiest(values: np.ndarray, shown: int) -> int:
    """The start of the stretch in which the property varies most; the first of several."""
    starts = range(0, max(1, len(values) - shown + 1), max(1, shown // 4))
    return max(starts, key=lambda low: float(np.var(values[low : low + shown])))


def _fill(figure: Any, curves: list[Any]) -> None:
    panels = figure.subplots(len(curves), 1, squeeze=False)[:, 0]
    for axes, (one, low, own, unit) in zip(panels, curves, strict=True):
        steps = np.arange(low, low + len(own))
        axes.step(steps, own, where="mid", color=COLOURS[0], linewidth=1.0, label=one.property)
        axes.set_ylabel(one.property)
        other = axes.twinx()
        other.spines["right"].set_visible(True)
        other.plot(steps, unit, color=COLOURS[1], linestyle=STYLES[0], linewidth=0.9)
        other.set_ylabel(f"{one.sites[0]} unit {one.units[0]}", color=COLOURS[1])
        other.set_title(f"correlation {one.correlation[0]:.2f}, {one.information[0]:.2f} bits", fontsize=8)
        axes.set_xlim(steps[0], steps[-1])
    panels[-1].set_xlabel("token")
