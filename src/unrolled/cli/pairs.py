"""``unrolled eval --task``: minimal pairs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from unrolled.cli.common import emit, progress_bar, table

if TYPE_CHECKING:
    from unrolled.evaluate.text.pairs import Group
    from unrolled.runs import Run

__all__ = ["check_alone", "check_given", "measure_pairs"]

_OF_CORPORA = (
    "corpus", "split", "window", "columns", "first", "reset", "denominator", "limit", "search", "search_tokens",
    "per_token", "against", "ensemble",
)  # fmt: skip
_OF_PAIRS = ("prepare", "normalize")


def check_given(context: typer.Context, task: str | None) -> None:
    """Raises UsageError for options that nothing would read: those of corpora with a task, those of pairs without."""
    from unrolled.core.errors import UsageError

    for name in _OF_PAIRS if task is None else _OF_CORPORA:
        if _given(context, name):
            where = "is for minimal pairs; give --task too" if task is None else "does not go with --task; leave it out"
            raise UsageError(f"{_flag(name)} {where}.")


def check_alone(context: typer.Context, *read: str, why: str = "per-token files hold all that is compared") -> None:
    """Raises UsageError for options beside those that are read, where something takes the place of a run's protocol."""
    from unrolled.core.errors import UsageError

    for name in context.params:
        if name not in read and _given(context, name):
            what = "the run" if name == "run" else _flag(name)
            raise UsageError(f"{why}; leave out {what}.")


def _given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    # by name, because releases of typer differ in whose class it is
    return source is not None and source.name == "COMMANDLINE"


def _flag(name: str) -> str:
    names = {"record": "out", "settings": "set"}
    return f"--{names.get(name, name).replace('_', '-')}"


def measure_pairs(run: "Run", task: str, options: dict[str, Any], dtype: str, record: Path | None, json: bool) -> None:
    """Measure a run on minimal pairs and print accuracies.

    Args:
        options: of :class:`PredictorConfig`, and under ``pairs`` those of :class:`PairsConfig`.
        record: file for the JSON record.
    """
    from unrolled.core.registry import unknown_name
    from unrolled.evaluate import PairsConfig, compare_pairs, open_predictor, read_pairs
    from unrolled.evaluate.of_run import DTYPES
    from unrolled.predict import PredictorConfig

    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    config = PairsConfig.parse(options.pop("pairs"))
    predict = PredictorConfig.parse(options)
    pairs = read_pairs(task, config.good, config.bad)
    with open_predictor(run, predict, DTYPES[dtype]) as predictor, progress_bar(f"scoring {task}", not json) as advance:
        result = compare_pairs(predictor, run.tokenizer, pairs, config, task, run.provenance(), advance)
    if record is not None:
        result.save(record)
    if json:
        emit(result.to_json())
        return
    rows = [[*_cells(group), group.inside or ""] for group in (*result.paradigms, *result.phenomena, *result.fields)]
    rows.append([*_cells(result.overall), f"prepared: {result.protocol['prepare']}"])
    table(["", "accuracy", "95 % interval", "pairs", "ties", "same tokens", "with unknown", "of"], rows)


def _cells(group: "Group") -> list[str]:
    interval = "" if group.interval is None else f"{group.interval[0]:.1%} to {group.interval[1]:.1%}"
    counts = (group.pairs, group.ties, group.same_tokens, group.unknown)
    return [group.name, f"{group.accuracy:.1%}", interval, *(f"{count:,}" for count in counts)]
