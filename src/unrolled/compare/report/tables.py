"""Tables for other programs. Equal results give equal bytes: nothing that a clock or a machine says is in them."""

from unrolled.analyse.plots import tsv
from unrolled.compare.answer import Analysis
from unrolled.compare.results import Found, RunFound, SystemFound

__all__ = ["contrasts_tsv", "results_tsv"]

_RUN = (
    "system", "corpus", "seed", "status", "set_aside", "value", "parameters", "width", "flops_per_token", "tokens",
    "nats_per_token", "bits_per_character", "train_nats", "test_nats_per_token",
)  # fmt: skip
_CONTRAST = (
    "contrast", "corpus", "first", "than", "figure", "split", "registered", "unit", "verdict", "difference", "low",
    "high", "covers", "t", "df", "p", "p_holm", "bootstrap_low", "bootstrap_high", "smallest", "power_at_smallest",
    "seeds_to_decide", "seeds_first", "seeds_than", "seeds_better", "seeds_common", "sd_first", "sd_than",
    "correlation",
)  # fmt: skip


def results_tsv(found: Found) -> str:
    """One line a full run, in the plan's order and by seed; runs that were set aside are marked by a 1."""
    further = sorted({name for system in found.systems for run in system.runs for name in run.figures})
    rows = [
        _run(found, system, run, aside, further)
        for system in found.systems
        for aside, runs in ((0, system.runs), (1, system.set_aside))
        for run in sorted(runs, key=lambda run: run.seed)
    ]
    return tsv([*_RUN, *further], rows)


def _run(found: Found, system: SystemFound, run: RunFound, aside: int, further: list[str]) -> list[object]:
    test = None if aside else found.test.get((system.name, system.corpus, run.seed))
    return [
        system.name, system.corpus, run.seed, run.status, aside, run.value, system.parameters, system.width,
        system.flops_per_token, run.tokens, run.nats_per_token, run.bits_per_character, run.train_nats, test,
        *(run.figures.get(name) for name in further),
    ]  # fmt: skip


def contrasts_tsv(analysis: Analysis) -> str:
    """One line a contrast and corpus: the registered ones, then what was not planned."""
    rows = []
    for row in (*analysis.contrasts, *analysis.not_planned):
        cells: list[object] = [row.name, row.corpus, row.first, row.than, row.figure, row.split, int(row.registered)]
        cells += [row.unit, row.verdict]
        one = row.found
        if one is None:
            cells += [None] * 7
        else:
            cells += [one.difference, *(one.interval() or (None, None)), one.covers, one.t, one.freedom, one.p]
        cells += [row.p_holm, *(row.bootstrap or (None, None)), row.smallest, row.power, row.seeds_to_decide]
        if one is None:
            cells += [None] * 7
        else:
            cells += [*one.counts, one.seeds_better, one.common, *one.sd, one.correlation]
        rows.append(cells)
    return tsv(_CONTRAST, rows)
