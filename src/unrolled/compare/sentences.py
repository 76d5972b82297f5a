"""Verdicts in words."""

from collections.abc import Sequence

from unrolled.compare.statistics import LEVEL
from unrolled.compare.verdicts import ContrastFound

__all__ = ["caution", "number", "p_value", "sentence", "signed"]

_FEW = 5
"""Below so many seeds the 95 % interval of a standard deviation reaches to more than three times what was found."""


def signed(value: float) -> str:
    """A difference, with its sign and four digits after the point; more where it is smaller than that shows."""
    return f"{value:+.4f}" if value == 0 or abs(value) >= 1e-3 else f"{value:+.2g}"


def number(value: float | None, digits: int = 4) -> str:
    """A figure with so many digits after the point; empty for None."""
    return "" if value is None else f"{value:.{digits}f}"


def p_value(p: float) -> str:
    """With its sign of equality, two digits."""
    return "< 0.0001" if p < 1e-4 else f"= {p:.2g}"


def sentence(row: ContrastFound) -> str:
    """The verdict of a contrast with its figures, in one or two sentences, and what weakens it."""
    parts = [_verdict(row), *(f"{mark[0].upper()}{mark[1:]}." for mark in row.marks)]
    return " ".join(parts)


def _verdict(row: ContrastFound) -> str:
    where = _where(row)
    if row.found is None:
        return f"Undecided between {row.first} and {row.than} on {where}: there are no figures of both to compare."
    size = f"{abs(row.found.difference):.4g} {row.unit}"
    over = " over seeds" if row.found.covers == "seeds" else ""
    counted = f"{_seeds(row)}, {row.first} lower at {row.found.seeds_better} of {row.found.common}"
    p = "" if row.p_holm is None else f", p {p_value(row.p_holm)} after Holm"
    if row.verdict in ("better", "worse"):
        order = "lower" if row.verdict == "better" else "higher"
        low, high = sorted(abs(end) for end in row.found.interval() or (0.0, 0.0))
        text = (
            f"{row.first} is {row.verdict} than {row.than} on {where}: {size} {order}, "
            f"95 % interval{over} {low:.4g} to {high:.4g} ({counted}{p})."
        )
        if row.verdict == "worse" and row.expected:
            text += " The plan had registered that it is better."
        if row.small:
            text += f" The difference is smaller than {row.smallest:g}, below which the plan says nobody cares."
        return text
    low, high = row.found.interval() or (0.0, 0.0)
    if row.verdict == "equivalent":
        low, high = row.found.interval(2 * LEVEL - 1) or (0.0, 0.0)
        return (
            f"{row.first} and {row.than} are equivalent on {where}: the 90 % interval of their difference, "
            f"{signed(low)} to {signed(high)} {row.unit}, lies within ± {row.smallest:g} ({counted})."
        )
    start = (
        f"Undecided between {row.first} and {row.than} on {where}: difference {signed(row.found.difference)} {row.unit}"
    )
    if not row.found.covers.startswith("seeds"):
        told = (
            f", 95 % interval over the text alone {signed(low)} to {signed(high)}" if row.found.covers == "text" else ""
        )
        return f"{start}{told}; one seed of a system says nothing of other seeds, so add seeds."
    return f"{start}, 95 % interval{over} {signed(low)} to {signed(high)} ({counted}{p}){_more(row)}"


def _where(row: ContrastFound) -> str:
    if row.split == "test":
        return f"the test split of {row.corpus}"
    return f"the training text of {row.corpus}" if row.figure == "train_nats" else row.corpus


def _seeds(row: ContrastFound) -> str:
    assert row.found is not None
    one, two = row.found.counts
    if one == two:
        return f"{one} seed{'s' if one > 1 else ''}" + ("" if row.found.paired else " each, not the same")
    return f"{one} and {two} seeds"


def _more(row: ContrastFound) -> str:
    """What would decide."""
    if not row.registered:
        return "."
    if row.seeds_to_decide is not None:
        return f"; about {row.seeds_to_decide} seeds per system would decide{caution([row])}."
    if row.found is not None and row.found.text_variance > 0:
        return "; no number of seeds would decide on this text: it is too short for a difference as small as this."
    return "; more than 100,000 seeds per system would be needed."


def caution(rows: Sequence[ContrastFound]) -> str:
    """What to think of a number of seeds that rests on the spread of a few; empty where there are enough."""
    fewest = min((min(row.found.counts) for row in rows if row.found is not None), default=_FEW)
    return "" if fewest >= _FEW else f" (a rough guess, since {fewest} seeds hardly tell how much seeds differ)"
