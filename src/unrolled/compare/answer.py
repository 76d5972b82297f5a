"""What a comparison has found, in whole: verdicts, what was not planned, and the answer that the plan's rules give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unrolled.compare.contrast import RuleConfig
from unrolled.compare.results import Found
from unrolled.compare.sentences import caution, sentence
from unrolled.compare.verdicts import ContrastFound, judge, missing_runs

__all__ = ["Analysis", "analyse"]


@dataclass(frozen=True)
class Analysis:
    """What is said of a :class:`Found`.

    Attributes:
        contrasts: those of the plan, on each corpus and pooled. not_planned: other pairs, and the test split.
        answer: one sentence; of a comparison that is not complete, one that may still change.
        missing: full runs that have not ended. complete: there are none.
    """

    contrasts: tuple[ContrastFound, ...]
    not_planned: tuple[ContrastFound, ...]
    answer: str
    missing: int

    @property
    def complete(self) -> bool:
        """Whether every run that the plan asks for has ended."""
        return self.missing == 0


def analyse(found: Found) -> Analysis:
    """Judge every contrast and give the answer.

    Raises:
        UnrolledError: scipy is not installed; runs whose texts differ in length.
    """
    planned, others = judge(found)
    missing = missing_runs(found)
    answer = _answer(found.rules, planned)
    if missing:
        answer = f"Not final, since {missing} run{'s have' if missing > 1 else ' has'} not ended: {answer}"
    return Analysis(tuple(planned), tuple(others), answer, missing)


def _answer(rules: Sequence[RuleConfig], planned: Sequence[ContrastFound]) -> str:
    deciding = {row.name: row for row in planned if row.decides}
    if not deciding:
        return "The plan asks for no contrast; the table of systems is all that it has."
    for rule in rules:
        if all(name in deciding and deciding[name].verdict in wanted for name, wanted in rule.when.items()):
            return rule.say
    if not rules:
        return " ".join(map(sentence, deciding.values()))
    return _undecided(rules, deciding)


def _undecided(rules: Sequence[RuleConfig], deciding: Mapping[str, ContrastFound]) -> str:
    """What stands between the verdicts and an answer."""
    asked = list(dict.fromkeys(name for rule in rules for name in rule.when if name in deciding))
    waiting = [deciding[name] for name in asked if deciding[name].verdict == "undecided"]
    if not waiting:
        told = ", ".join(f"{name}: {deciding[name].verdict}" for name in asked)
        return f"Undecided: no rule of the plan fits what was found ({told})."
    seeds = [row.seeds_to_decide for row in waiting]
    names = ", ".join(repr(row.name) for row in waiting)
    if any(row.found is None or not row.found.covers.startswith("seeds") for row in waiting):
        return f"Undecided: {names} would be decided by more seeds; with one or none nothing can be said of others."
    known = [count for count in seeds if count is not None]
    if len(known) < len(seeds):
        return f"Undecided: {names} cannot all be decided on this text by any number of seeds; take a longer one."
    return f"Undecided: about {max(known)} seeds per system would decide {names}{caution(waiting)}."
