"""Models against slices in time: how each measures on the text of every period (Loureiro et al. 2022)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from unrolled.core.errors import UsageError
from unrolled.data import CorpusConfig
from unrolled.data.slices import slice_names
from unrolled.evaluate.measure import EvalConfig
from unrolled.evaluate.of_run import evaluate_run
from unrolled.evaluate.result import EvalResult
from unrolled.runs import Run

__all__ = ["Cell", "Grid", "evaluate_grid", "slice_named"]

_BLOCK = 1 << 20


class Cell(NamedTuple):
    """A model on a slice. unknown: share of the slice's tokens that are the unknown word; None where there is none."""

    result: EvalResult
    unknown: float | None


class Grid(NamedTuple):
    """slices: in order of time. runs: in the order given. cells: (runs, slices). shared: whether all runs have the same
    symbols, so that perplexities per token may stand side by side; bits per character always may."""

    slices: list[str]
    runs: list[Run]
    cells: list[list[Cell]]
    shared: bool

    @property
    def figure(self) -> str:
        """The figure for a table."""
        return "perplexity_per_token" if self.shared else "bits_per_character"

    def to_json(self) -> dict[str, Any]:
        """JSON values: every figure of every cell."""
        rows = []
        for run, cells in zip(self.runs, self.cells, strict=True):
            own = {name: {**cell.result.figures(), "tokens": cell.result.tokens, "unknown_share": cell.unknown,
                          "protocol": cell.result.protocol.name}
                   for name, cell in zip(self.slices, cells, strict=True)}  # fmt: skip
            rows.append({"run": str(run.path), "trained_on": run.config.corpus.label, "slices": own})
        return {"kind": "grid", "version": 1, "slices": self.slices, "same_symbols": self.shared, "runs": rows}


def evaluate_grid(
    runs: Sequence[Run],
    corpus: CorpusConfig | None = None,
    config: EvalConfig | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Grid:
    """Measure every run on a split of every slice.

    Args:
        corpus: documents with a date; absent: those of the first run. Its ``slice`` does not count.
        config: how, as for :func:`evaluate_run`.
        progress: called with the cells done, those there are, and the nats per token of the last.
    Raises:
        UsageError: a corpus whose documents have no date; a run of another task.
    """
    if not runs:
        raise UsageError("give one or more runs.")
    for run in runs:
        run.check_language()
    corpus, config = corpus or runs[0].config.corpus, config or EvalConfig()
    corpus = corpus.model_copy(update={"slice": None})
    slices = slice_names(corpus)
    rows: list[list[Cell]] = []
    for run in runs:
        rows.append([])
        for name in slices:
            chosen = corpus.model_copy(update={"slice": name})
            result = evaluate_run(run, chosen, config)
            rows[-1].append(Cell(result, _unknown(run, chosen, config)))
            if progress is not None:
                progress(sum(map(len, rows)), len(runs) * len(slices), result.nats_per_token)
    symbols = {run.tokenizer.symbols_checksum() for run in runs}
    return Grid(slices, list(runs), rows, len(symbols) == 1)


def slice_named(run: Run, corpus: str | None, name: str) -> CorpusConfig:
    """A corpus with one slice in time.

    Args:
        run: whose documents they are, where ``corpus``, another path, is absent. name: of the slice; ``next``: the one
            that follows that of the run.
    Raises:
        UsageError: documents without a date; no such slice.
    """
    own = run.config.corpus
    if own.time is None:
        raise UsageError(f"{run.path} was trained on a text without dates; --slice is of documents with a date.")
    chosen = own if corpus is None else own.model_copy(update={"path": corpus, "name": None, "base": None})
    chosen = chosen.model_copy(update={"slice": None})
    if name == "next":
        later = slice_names(chosen)
        if own.slice is None:
            raise UsageError(f"{run.path} was trained on all slices, none of which is followed by a next; name one.")
        after = [one for one in later if later.index(one) > later.index(own.slice)] if own.slice in later else []
        if not after:
            raise UsageError(f"there is no slice after {own.slice}, which {run.path} was trained on; name one.")
        name = after[0]
    return chosen.model_copy(update={"slice": name})


def _unknown(run: Run, corpus: CorpusConfig, config: EvalConfig) -> float | None:
    unknown = getattr(run.tokenizer, "unk_id", None)
    if unknown is None:
        return None
    _, split, _ = run.to_measure(config.split, corpus)
    total = min(config.limit or len(split), len(split))
    found = sum(
        int(np.count_nonzero(split.ids(start, min(start + _BLOCK, total)) == unknown))
        for start in range(0, total, _BLOCK)
    )
    return found / total
