"""``unrolled merge``."""

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.common import JsonOption, ThreadsOption, app, emit, table, use_threads


@app.command()
def merge(
    base: Annotated[Path, typer.Argument(help="The run that the others began from.")],
    target: Annotated[Path, typer.Option("--out", "-o", help="The new run directory, which must not exist.")],
    add: Annotated[
        list[str] | None,
        typer.Option("--add", metavar="A=RUN", help="Add A times (RUN - BASE); with --soup RUN. Repeatable."),
    ] = None,
    soup: Annotated[bool, typer.Option("--soup", help="Choose the factors on the base's validation text.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="With --soup: only the first so many tokens of that text.")
    ] = None,
    vocabulary: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="K",
            help="In place of --add: make the K most frequent sequences of words tokens of their own.",
        ),
    ] = None,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Merge runs of one model by their weights: BASE + A (RUN - BASE) + ...; or tokens of one run into longer ones.

    Example: unrolled merge runs/base --add 0.5=runs/2012 --add 0.5=runs/2016 --out runs/2014

    Example: unrolled merge runs/base --soup --add runs/a --add runs/b --out runs/soup

    Example: unrolled merge runs/word --vocabulary 1000 --out runs/longer
    """
    from unrolled.core.errors import UsageError
    from unrolled.evaluate.soup import choose_soup
    from unrolled.runs import Run
    from unrolled.runs.merging import write_merged

    use_threads(threads)
    if (vocabulary is None) == (not add):
        raise UsageError("give the runs to add, each with --add, or --vocabulary with a number of longer tokens.")
    if vocabulary is not None and soup:
        raise UsageError("--soup chooses among runs to add; leave it out, or --vocabulary.")
    if limit is not None and not soup:
        raise UsageError("--limit is of the text by which --soup chooses; leave it out, or add --soup.")
    if target.exists():
        raise UsageError(f"{target} is there already; choose another folder.")
    if vocabulary is not None:
        _extend(base, vocabulary, target, json)
        return
    given = [(None, one) if soup else _divided(one) for one in add or ()]
    first, others = Run(base, "cpu"), [Run(Path(path), "cpu") for _, path in given]
    factors, how = [factor for factor, _ in given if factor is not None], {}
    if soup:
        found = choose_soup(first, others, limit)
        factors, how = found.factors, {"soup": {"nats_per_token": found.nats, "limit": limit}}
    write_merged(target, first, others, factors, how)
    parts = [{"run": str(run.path), "factor": factor} for run, factor in zip(others, factors, strict=True)]
    if json:
        emit({"kind": "merge", "run": str(target), "base": str(base), "merged": parts, **how})
        return
    table(["", str(target)], [("base", str(base)), *((f"{one['factor']:g}", one["run"]) for one in parts)])


def _extend(base: Path, vocabulary: int, target: Path, json: bool) -> None:
    from unrolled.runs import Run
    from unrolled.runs.vocabulary import write_extended

    made = write_extended(target, Run(base, "cpu"), vocabulary)
    size, first = made.base.vocab_size, min(5, vocabulary)
    if json:
        sequences = [made.token(size + i) for i in range(vocabulary)]
        emit({"kind": "vocabulary", "run": str(target), "base": str(base), "sequences": sequences})
        return
    names = ", ".join(repr(made.token(size + i)) for i in range(first))
    table(["", str(target)], [("base", str(base)), ("tokens", f"{size:,} and {vocabulary:,} more"), ("first", names)])


def _divided(value: str) -> tuple[float, str]:
    """A=RUN as its two parts. Raises UsageError for anything else."""
    from math import isfinite

    from unrolled.core.errors import UsageError
    from unrolled.core.registry import shown

    number, _, path = value.partition("=")
    try:
        factor = float(number)
    except ValueError:
        factor = float("nan")
    if not path or not isfinite(factor):
        raise UsageError(f"--add takes a number and a run, as in 0.5=runs/a, not {shown(value)}.")
    return factor, path
