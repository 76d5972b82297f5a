"""What a comparison's runs say: a verdict for every contrast, corrected for their number, and the answer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np

from unrolled.compare.contrast import ContrastConfig, Verdict
from unrolled.compare.power import power_of, seeds_to_decide
from unrolled.compare.results import Found, RunFound, SystemFound
from unrolled.compare.statistics import LEVEL, CrossedDifference, crossed_bootstrap, crossed_difference, holm

__all__ = ["ContrastFound", "bits", "corpora_of", "judge", "loss_unit", "missing_runs", "unit_of"]

NATS = "nats_per_token"


@dataclass(frozen=True)
class ContrastFound:
    """A contrast on one corpus, or pooled over several.

    Attributes:
        expected: the plan registered that ``first`` is the better one.
        registered: in the plan; else of the table of what was not planned.
        decides: the row of its contrast that rules read: the pooled one where there are several corpora.
        unit: of ``found``, ``smallest`` and ``bootstrap``. In every figure less is better.
        found: first less than; None where one of the systems has no finished run.
        p_holm: the p-value adjusted for all rows of the same table.
        bootstrap: two-way percentile interval, from ten seeds on, as a check.
        power: chance of showing a true difference of ``smallest``.
        seeds_to_decide: of each system, where undecided; None too where no number would do.
        marks: sentences on what weakens the verdict.
    """

    name: str
    first: str
    than: str
    corpora: tuple[str, ...]
    figure: str
    split: Literal["valid", "test"]
    unit: str
    registered: bool
    decides: bool = False
    expected: bool = False
    smallest: float | None = None
    found: CrossedDifference | None = None
    bootstrap: tuple[float, float] | None = None
    p_holm: float | None = None
    power: float | None = None
    verdict: Verdict = "undecided"
    seeds_to_decide: int | None = None
    marks: tuple[str, ...] = ()

    @property
    def corpus(self) -> str:
        """Its corpora, for readers."""
        return self.corpora[0] if len(self.corpora) == 1 else f"{', '.join(self.corpora)} pooled"

    @property
    def small(self) -> bool:
        """Whether the difference is surely smaller than what anybody cares about."""
        p = None if self.found is None or self.smallest is None else self.found.equivalence_p(self.smallest)
        return p is not None and p < 1 - LEVEL


def judge(found: Found) -> tuple[list[ContrastFound], list[ContrastFound]]:
    """The registered contrasts, and what was not planned: all other pairs, and the test split.

    Raises:
        UnrolledError: scipy is not installed; runs whose texts differ in length.
    """
    planned = [row for contrast in found.contrasts for row in _planned(found, contrast)]
    return _verdicts(planned), _verdicts([*_other_pairs(found, planned), *_on_test(found, planned)])


def corpora_of(found: Found) -> tuple[str, ...]:
    """In the plan's order."""
    return tuple(dict.fromkeys(system.corpus for system in found.systems))


def missing_runs(found: Found) -> int:
    """Full runs that the plan asks for and that have not ended."""
    return sum(len(set(found.wanted) - {run.seed for run in system.runs}) for system in found.systems)


def bits(nats: float) -> float:
    """Nats in bits."""
    return nats / math.log(2)


def unit_of(found: Found, corpora: Sequence[str]) -> str:
    """Of losses."""
    own = {found.units.get(corpus, "") for corpus in corpora}
    return loss_unit(all(found.characters.get(c, False) for c in corpora), own.pop() if len(own) == 1 else "")


def loss_unit(characters: bool, unit: str = "") -> str:
    """The unit of a loss. characters: whether tokens are; unit: what it is of where it is no token."""
    return f"bits per {unit or ('character' if characters else 'token')}"


def _planned(found: Found, contrast: ContrastConfig) -> list[ContrastFound]:
    corpora = contrast.corpora or corpora_of(found)
    groups = [(corpus,) for corpus in corpora] + ([tuple(corpora)] if len(corpora) > 1 else [])
    rows = [
        _row(found, contrast.name, contrast.one, contrast.than, group, contrast.figure, "valid", True)
        for group in groups
    ]
    facts = {"expected": contrast.better is not None, "smallest": contrast.smallest}
    return [replace(row, decides=group is groups[-1], **facts) for row, group in zip(rows, groups, strict=True)]


def _other_pairs(found: Found, planned: Sequence[ContrastFound]) -> list[ContrastFound]:
    taken = {(frozenset((row.first, row.than)), row.corpora) for row in planned if row.figure == NATS}
    rows = []
    for corpus in corpora_of(found):
        names = [system.name for system in found.systems if system.corpus == corpus]
        for first, than in combinations(names, 2):
            if (frozenset((first, than)), (corpus,)) not in taken:
                rows.append(_row(found, f"{first} against {than}", first, than, (corpus,), NATS, "valid", False))
    return rows


def _on_test(found: Found, planned: Sequence[ContrastFound]) -> list[ContrastFound]:
    scored = {corpus for _, corpus, _ in found.test}
    wanted = [row for row in planned if row.figure == NATS and len(row.corpora) == 1 and row.corpora[0] in scored]
    return [_row(found, row.name, row.first, row.than, row.corpora, NATS, "test", False) for row in wanted]


def _row(
    found: Found,
    name: str,
    first: str,
    than: str,
    corpora: tuple[str, ...],
    figure: str,
    split: Literal["valid", "test"],
    registered: bool,
) -> ContrastFound:
    """A contrast with its difference, and without a verdict."""
    of = {(system.name, system.corpus): system for system in found.systems}
    sides = [[of.get((name, corpus)) for corpus in corpora] for name in (first, than)]
    blocks = figure == NATS and split == "valid"
    blocks = blocks and all(len(run.blocks) for side in sides for one in side if one for run in _finished(one))
    values = [_values(found, side, figure, split, blocks) for side in sides]
    marks = [mark for side in sides for one in side if one is not None for mark in _marks(found, one, len(corpora) > 1)]
    unit = unit_of(found, corpora) if figure in (NATS, "train_nats") else figure
    row = ContrastFound(name, first, than, corpora, figure, split, unit, registered, marks=tuple(marks))
    if not all(values):
        return row
    first_seeds, second_seeds = (sorted(side) for side in values)
    one, two = [values[0][seed] for seed in first_seeds], [values[1][seed] for seed in second_seeds]
    tokens, strata = _block_tokens(found, corpora, sides) if blocks else (None, np.arange(len(corpora)))
    if len(corpora) > 1:
        crossed = crossed_difference(one, two, first_seeds, second_seeds, tokens, strata)
        return replace(row, found=crossed)
    crossed = crossed_difference(one, two, first_seeds, second_seeds, tokens)
    check = crossed_bootstrap(one, two, tokens) if registered and crossed.paired else None
    return replace(row, found=crossed, bootstrap=check)


def _finished(system: SystemFound) -> list[RunFound]:
    return [run for run in system.runs if run.status == "finished"]


def _values(
    found: Found, side: Sequence[SystemFound | None], figure: str, split: str, blocks: bool
) -> dict[int, np.ndarray]:
    """seed -> its figures, (blocks of all corpora,) or (corpora,), in bits where they are losses."""
    by_corpus = []
    for system in side:
        values: dict[int, np.ndarray] = {}
        for run in _finished(system) if system is not None else ():
            value = _figure(found, system, run, figure, split) if system is not None else None
            if blocks:
                values[run.seed] = np.asarray(run.blocks, np.float64) / math.log(2)
            elif value is not None:
                values[run.seed] = np.array([value])
        by_corpus.append(values)
    common = set(by_corpus[0]).intersection(*by_corpus[1:])
    return {seed: np.concatenate([values[seed] for values in by_corpus]) for seed in common}


def _figure(found: Found, system: SystemFound, run: RunFound, figure: str, split: str) -> float | None:
    """Of one run, in bits where it is a loss."""
    if figure not in (NATS, "train_nats"):
        return run.figures.get(figure)
    if split == "test":
        value = found.test.get((system.name, system.corpus, run.seed))
    else:
        value = run.nats_per_token if figure == NATS else run.train_nats
    return None if value is None else bits(value)


def _block_tokens(
    found: Found, corpora: Sequence[str], sides: Sequence[Sequence[SystemFound | None]]
) -> tuple[np.ndarray, np.ndarray]:
    """(blocks of all corpora,) tokens of each, and the number of its corpus."""
    tokens, strata = [], []
    for i, (corpus, system) in enumerate(zip(corpora, sides[0], strict=True)):
        count = len(_finished(system)[0].blocks) if system is not None else 0
        size, total = found.block.get(corpus, 1), found.split_tokens.get(corpus)
        own = np.full(count, float(size))
        if total is not None and 0 < total - size * (count - 1) <= size:
            own[-1] = total - size * (count - 1)
        tokens.append(own)
        strata.append(np.full(count, i))
    return np.concatenate(tokens), np.concatenate(strata)


def _marks(found: Found, system: SystemFound, several: bool) -> list[str]:
    marks, where = [], f" on {system.corpus}" if several else ""
    diverged = len(system.runs) - len(_finished(system))
    if diverged:
        left = "is left out" if diverged == 1 else "are left out"
        marks.append(f"{diverged} of {len(system.runs)} runs of {system.name}{where} diverged and {left}")
    if system.at_edge:
        marks.append(f"the value chosen for {system.name}{where} is the least or largest that was tried")
    missing = len(set(found.wanted) - {run.seed for run in system.runs})
    if missing:
        marks.append(f"{missing} of {len(found.wanted)} runs of {system.name}{where} have not ended")
    return marks


def _verdicts(rows: Sequence[ContrastFound]) -> list[ContrastFound]:
    """With verdicts, adjusted for the number of rows."""
    adjusted = holm([None if row.found is None else row.found.p for row in rows])
    return [_decide(replace(row, p_holm=p), len(rows)) for row, p in zip(rows, adjusted, strict=True)]


def _decide(row: ContrastFound, contrasts: int) -> ContrastFound:
    if row.found is None:
        return row
    power = None if row.smallest is None else power_of(row.found, row.smallest, contrasts)
    verdict: Verdict = "undecided"
    if row.p_holm is not None and row.p_holm < 1 - LEVEL:
        verdict = "better" if row.found.difference < 0 else "worse"
    elif row.small:
        verdict = "equivalent"
    seeds = seeds_to_decide(row.found, row.smallest, contrasts) if verdict == "undecided" and row.registered else None
    return replace(row, verdict=verdict, power=power, seeds_to_decide=seeds)
