"""What each cell could learn, as rows of a table: one a problem and system, with a figure for every point."""

from collections.abc import Sequence
from typing import NamedTuple

from unrolled.compare.problems import TRAINED, PlanProblem, figure_name
from unrolled.compare.results import Found, RunFound, SystemFound

__all__ = ["LEARNED", "Cell", "ProbeRow", "probe_rows"]

LEARNED = 0.99
"""Share of right answers on what a model was trained on from which on it has learned the problem."""

CHANCE, EXACT = "chance", "exact predictor"


class Cell(NamedTuple):
    """A figure at a point: the mean over seeds, and the least and largest of them; of a single seed the 95 % interval
    over its rows."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high == self.value:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


class ProbeRow(NamedTuple):
    """A system on a problem.

    Attributes:
        shares: point -> share of right answers; of possible ones, where symbols are drawn by chance. excess: point ->
            mean nats above those of the exact predictor; empty where answers follow from what was read.
        learned: whether the best seed has the problem as it was trained; None for chance and the exact predictor.
        at_edge: the learning rate chosen is the least or largest that was tried.
    """

    problem: str
    system: str
    width: int
    parameters: int
    state: int
    rate: float | str | None
    at_edge: bool
    seeds: int
    diverged: int
    cpu_seconds: float
    shares: dict[str, Cell]
    excess: dict[str, Cell]
    learned: bool | None

    @property
    def said(self) -> str:
        """What there is to say of the row in words."""
        if self.learned is None:
            return ""
        beyond = [cell.value for point, cell in self.shares.items() if point != TRAINED]
        parts = [] if self.learned else ["not learned"]
        if self.learned and beyond and min(beyond) < LEARNED:
            parts.append("does not extrapolate")
        if self.at_edge:
            parts.append("rate at the edge")
        return ", ".join(parts)


def probe_rows(found: Found, problems: Sequence[PlanProblem]) -> list[ProbeRow]:
    """All rows, problem by problem; before those of the systems what guessing comes to, and the exact predictor."""
    rows: list[ProbeRow] = []
    for one in problems:
        systems = [system for system in found.systems if system.corpus == one.label]
        kind = _kind(systems)
        rows += [_baseline(one, CHANCE, kind), _baseline(one, EXACT, kind)]
        rows += [_row(one, system, kind) for system in systems]
    return rows


def _finished(system: SystemFound) -> list[RunFound]:
    return [run for run in system.runs if run.status == "finished"]


def _kind(systems: Sequence[SystemFound]) -> str:
    """Which share tells: whether answers follow from what was read, or are drawn by chance."""
    names = {name for system in systems for run in _finished(system) for name in run.figures}
    return "legal" if any(name.startswith("legal at ") for name in names) else "accuracy"


def _baseline(one: PlanProblem, name: str, kind: str) -> ProbeRow:
    problem, shares = one.made(), {}
    for point, label in zip(one.all_points(), one.named_points(), strict=True):
        value = 1.0 if name == EXACT else problem.at(**point).chance()
        if not (name == CHANCE and kind == "legal"):  # of guesses no share of possible symbols is known beforehand
            shares[label] = Cell(value, value, value)
    excess = {label: Cell(0.0, 0.0, 0.0) for label in one.named_points()} if (kind, name) == ("legal", EXACT) else {}
    return ProbeRow(one.label, name, 0, 0, 0, None, False, 0, 0, 0.0, shares, excess, None)


def _row(one: PlanProblem, system: SystemFound, kind: str) -> ProbeRow:
    runs = _finished(system)
    shares = {point: cell for point in one.named_points() if (cell := _cell(runs, kind, point)) is not None}
    excess = {point: cell for point in one.named_points() if (cell := _cell(runs, "excess", point)) is not None}
    seconds = [run.cpu_seconds for run in system.runs]
    best = [run.figures.get(figure_name(kind, TRAINED), 0.0) for run in runs]
    return ProbeRow(
        one.label, system.name, system.width, system.parameters, system.state, system.chosen, system.at_edge, len(runs),
        len(system.runs) - len(runs), sum(seconds) / len(seconds) if seconds else 0.0, shares, excess,
        max(best) >= LEARNED if best else False,
    )  # fmt: skip


def _cell(runs: Sequence[RunFound], kind: str, point: str) -> Cell | None:
    name = figure_name(kind, point)
    values = [run.figures[name] for run in runs if name in run.figures]
    if not values:
        return None
    if len(values) > 1:
        return Cell(sum(values) / len(values), min(values), max(values))
    figures = next(run.figures for run in runs if name in run.figures)
    if kind == "excess":
        error = 1.96 * figures[figure_name("excess error", point)]
        return Cell(values[0], values[0] - error, values[0] + error)
    return Cell(values[0], figures[figure_name(f"{kind} low", point)], figures[figure_name(f"{kind} high", point)])
