"""The report's contents in their order: answer, what was held equal, systems, contrasts, the rest."""

import numpy as np

from unrolled.compare.answer import Analysis
from unrolled.compare.power import seeds_needed
from unrolled.compare.report.parts import Section, Table
from unrolled.compare.report.provenance import provenance
from unrolled.compare.results import Found, RunFound, SystemFound
from unrolled.compare.sentences import number, sentence, signed
from unrolled.compare.verdicts import ContrastFound, bits, corpora_of, unit_of

__all__ = ["sections"]

_LIMITS = (
    "An interval says how far a difference may be off had other seeds been drawn and, of losses on a text, another "
    "text of the same kind and length been read. It says nothing of other corpora, of other sizes of model or budgets, "
    "of another search for the searched setting, or of another order of the training text."
)
_METHOD = (
    "Differences are the first system less the second, of the mean loss on the validation split, so that less than "
    "zero means that the first is better. Intervals of losses on a text hold for seeds and text together: variance "
    "components of seeds and of blocks of the text, with quantiles of Student's t; those of frames and of points of "
    "synthetic problems hold for seeds alone. Better and worse need p < 0.05 after Holm's correction for all rows of a "
    "table; equivalent needs the 90 % interval within the smallest difference that the plan cares about."
)
_SHOWN_DIFFERENCES = (0.02, 0.01, 0.005)


def sections(found: Found, analysis: Analysis) -> list[Section]:
    """All but the title. Figures are named whether or not they can be drawn."""
    return [
        Section("Answer", _first_words(found, analysis), _weak(analysis)),
        _matching(found),
        _systems(found),
        _contrasts(analysis),
        _not_planned(found, analysis),
        _amendments(found),
        Section("Provenance", points=provenance(found, analysis)),
        Section("What the intervals do not cover", [_LIMITS]),
        _next_plan(found, analysis),
    ]


def _first_words(found: Found, analysis: Analysis) -> list[str]:
    words = []
    if not analysis.complete:
        asked = len(found.wanted) * len(found.systems)
        words.append(f"Not complete: {analysis.missing} of {asked} runs have not ended, and all below may change.")
    if found.free:
        words.append(f"Not everything was held equal: {' '.join(found.free)}")
    return [*words, analysis.answer]


def _weak(analysis: Analysis) -> list[str]:
    """What weakens the verdicts that the rules read."""
    return [f"{row.name}: {mark}." for row in analysis.contrasts if row.decides for mark in row.marks]


def _matching(found: Found) -> Section:
    free = [f"Free: {text}" for text in found.free] or ["Free: nothing but what the systems name."]
    matched = [f"Equal: {text}" for text in found.matched] or ["Equal: nothing was asked to be."]
    return Section("What was held equal", points=[*matched, *free, *(f"System {text}" for text in found.described)])


def _systems(found: Found) -> Section:
    several, searched = len(corpora_of(found)) > 1, any(system.search for system in found.systems)
    tested = bool(found.test)
    units = ", ".join(dict.fromkeys(unit_of(found, [corpus]) for corpus in corpora_of(found)))
    heads = ["system", *(["corpus"] if several else []), "parameters", "width", "FLOPs per token", "tokens"]
    heads += [found.search_setting or "chosen"] if searched else []
    heads += [f"mean, {units}", "sd", "n", "training", *(["test"] if tested else []), "CPU s", "diverged"]
    rows = []
    for system in found.systems:
        done = [run for run in system.runs if run.status == "finished"]
        row = [system.name, *([system.corpus] if several else [])]
        row += [f"{value:,}" for value in (system.parameters, system.width, system.flops_per_token, system.tokens)]
        if searched:
            row.append("" if system.chosen is None else f"{system.chosen}{' (edge)' if system.at_edge else ''}")
        mean, sd = _mean_sd([run.nats_per_token for run in done])
        row += [number(mean), number(sd), str(len(done)), number(_mean_sd([run.train_nats for run in done])[0])]
        if tested:
            row.append(number(_mean_sd([found.test.get((system.name, system.corpus, run.seed)) for run in done])[0]))
        spent = [run.cpu_seconds for run in done]
        row += [f"{np.mean(spent):,.0f}" if spent else "", _diverged(system)]
        rows.append(row)
    notes = []
    if any(system.set_aside for system in found.systems):
        notes.append(
            "Where a full run diverged at the value that the search had chosen, all runs with that value were set "
            "aside and the next smaller value was taken; their number is in brackets."
        )
    if any(system.at_edge for system in found.systems):
        notes.append("A chosen value marked (edge) is the least or largest that was tried: the best may lie beyond.")
    table = Table(heads, rows, 2 if several else 1)
    return Section("Systems", notes, table=table, figures=["seeds", "search", "curves", "training"])


def _diverged(system: SystemFound) -> str:
    lost = sum(run.status == "diverged" for run in system.runs)
    return f"{lost}{f' ({len(system.set_aside)} set aside)' if system.set_aside else ''}"


def _mean_sd(nats: list[float | None]) -> tuple[float | None, float | None]:
    """In bits."""
    values = [bits(value) for value in nats if value is not None]
    if not values:
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def _contrasts(analysis: Analysis) -> Section:
    if not analysis.contrasts:
        return Section("Contrasts", ["The plan asks for none."])
    points = [f"{row.name}: {sentence(row)}" for row in analysis.contrasts]
    return Section("Contrasts", [_METHOD], points, _table(analysis.contrasts), ["contrasts", "pairs"])


def _not_planned(found: Found, analysis: Analysis) -> Section:
    if not analysis.not_planned:
        return Section("Not planned", ["There is no other pair of systems."])
    words = [
        "What follows was not registered: it may suggest the next plan, and no rule reads it. Holm's correction is "
        "over all rows of this table."
    ]
    words += [f"The test split was scored again: {reason}" for reason in found.test_reasons]
    return Section("Not planned", words, table=_table(analysis.not_planned))


def _table(rows: tuple[ContrastFound, ...]) -> Table:
    units = sorted({row.unit for row in rows})
    checked, judged = any(row.bootstrap for row in rows), any(row.smallest for row in rows)
    heads = ["contrast", "corpus", "verdict", "difference" if len(units) > 1 else f"difference, {units[0]}"]
    heads += ["95 % interval", "t", "df", "p", "p, Holm", "first lower at"]
    heads += [*(["bootstrap"] if checked else []), *(["smallest", "power for it"] if judged else [])]
    shown = []
    for row in rows:
        where = row.corpus if row.split == "valid" else f"{row.corpus}, test"
        cells = [row.name, where, row.verdict]
        if row.found is None:
            shown.append([*cells, *[""] * (len(heads) - len(cells))])
            continue
        cells += [
            signed(row.found.difference) + (f" {row.unit}" if len(units) > 1 else ""),
            _range(row.found.interval()),
        ]
        cells += [number(row.found.t, 2), number(row.found.freedom, 1), _p(row.found.p), _p(row.p_holm)]
        cells.append(f"{row.found.seeds_better} of {row.found.common}")
        cells += [_range(row.bootstrap)] if checked else []
        cells += ["" if row.smallest is None else f"{row.smallest:g}", _share(row.power)] if judged else []
        shown.append(cells)
    return Table(heads, shown, 3)


def _range(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{signed(interval[0])} to {signed(interval[1])}"


def _p(p: float | None) -> str:
    return "" if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _amendments(found: Found) -> Section:
    if not found.amendments:
        return Section("Amendments", ["The plan was not changed after it was registered."])
    points = [
        f"{one.get('utc', '')}: {one.get('what', '')} (reason: {one.get('reason', '')})" for one in found.amendments
    ]
    return Section("Amendments", ["The plan was changed after it was registered:"], points)


def _next_plan(found: Found, analysis: Analysis) -> Section:
    """Standard deviations and correlations, and what they mean for the number of seeds."""
    words, rows = [], []
    for corpus in corpora_of(found):
        runs = [_losses(system.runs) for system in found.systems if system.corpus == corpus]
        spread = [(len(one) - 1, one.var(ddof=1)) for one in runs if len(one) > 1]
        if not spread:
            words.append(
                f"No system has two finished runs on {corpus}, so that nothing is known of the spread over seeds."
            )
            continue
        sd = float(np.sqrt(sum(count * variance for count, variance in spread) / sum(count for count, _ in spread)))
        needed = [(size, seeds_needed(size, sd)) for size in _SHOWN_DIFFERENCES] if sd > 0 else []
        told = "; ".join(f"{size:g}: {'over 100,000' if seeds is None else seeds}" for size, seeds in needed)
        unit = unit_of(found, [corpus])
        words.append(
            f"On {corpus} the standard deviation over seeds, pooled over systems, is {sd:.4f} {unit}."
            + (f" Seeds per system for 80 % power, one contrast, not paired: {told}." if told else "")
        )
    for row in analysis.contrasts:
        if row.found is not None and len(row.corpora) == 1:
            sds = [number(value) for value in row.found.sd]
            rows.append([row.name, row.corpus, *sds, number(row.found.correlation, 2), signed_error(row)])
    heads = [
        "contrast",
        "corpus",
        "sd of the first",
        "sd of the second",
        "correlation at equal seeds",
        "error by the text",
    ]
    return Section("For the next plan", words, table=Table(heads, rows, 2) if rows else None)


def signed_error(row: ContrastFound) -> str:
    """The standard error that the text alone makes."""
    return "" if row.found is None else f"{row.found.text_variance**0.5:.2g}"


def _losses(runs: tuple[RunFound, ...]) -> np.ndarray:
    return np.array([bits(run.nats_per_token) for run in runs if run.nats_per_token is not None])
