"""``unrolled inspect reading``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unrolled.cli.common import DeviceOption, JsonOption, ThreadsOption, progress_bar, table, use_threads, write
from unrolled.cli.inspect.common import FolderOption, names_apart, present, verbs

__all__ = ["reading"]


@verbs.command()
def reading(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN [RUN ...]", help="Run directories, side by side.")],
    words: Annotated[str, typer.Argument(metavar="TABLE", help="A table of words, TSV or CSV (compressed too).")],
    measure: Annotated[str, typer.Option(help="The column with the measure of a word, such as its reading time.")],
    column: Annotated[str, typer.Option(help="The column of words.")] = "word",
    item: Annotated[str, typer.Option(help="The column that says which text a word is of.")] = "item",
    order: Annotated[
        str | None, typer.Option(help="The column with a word's place in its text; absent: the order of the rows.")
    ] = None,
    words_of: Annotated[
        str | None, typer.Option(help="A table with all words of the texts, where TABLE lacks some; needs --order.")
    ] = None,
    quotes: Annotated[
        str | None,
        typer.Option(help="Quotation marks around a field: plain (of the word), or fields (as in CSV)."),
    ] = None,
    spillover: Annotated[int, typer.Option(min=0, max=16, help="Words before, whose predictors count as well.")] = 2,
    folds: Annotated[int, typer.Option(min=2, help="Parts that texts are dealt to, each left out once.")] = 10,
    log: Annotated[bool, typer.Option("--log", help="Regress the logarithm of the measure.")] = False,
    frequency: Annotated[
        Path | None,
        typer.Option(help="A run whose training text gives word frequencies; absent: the first count run, or run."),
    ] = None,
    boundary: Annotated[
        str, typer.Option(help="leading: the space belongs to the next word; trailing: a word's end belongs to it.")
    ] = "leading",
    resample: Annotated[str, typer.Option(help="What is redrawn for the intervals: texts, or words.")] = "texts",
    folder: FolderOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """What surprisal says of reading times beyond length and frequency: gain in log-likelihood per word, held out.

    Whole texts are left out in turn; the words before count as well (--spillover).

    Example: unrolled inspect reading runs/kn5 runs/lstm times.tsv --measure meanRT --item story --order position
    """
    from unrolled.analyse import (
        ReadingColumns,
        ReadingConfig,
        count_words,
        measure_reading,
        read_measures,
        reading_record,
        word_surprisals,
        write_reading,
    )
    from unrolled.core.errors import UsageError
    from unrolled.core.files import make_folder
    from unrolled.core.notes import note as tell
    from unrolled.evaluate import open_predictor
    from unrolled.runs import CONFIG, Run
    from unrolled.task import ClosedTask

    columns = ReadingColumns.parse({"word": column, "measure": measure, "text": item, "order": order, "quotes": quotes})
    config = ReadingConfig.parse(
        {"spillover": spillover, "folds": folds, "log": log, "boundary": boundary, "resample": resample}
    )
    use_threads(threads)
    if folder is not None and (folder / CONFIG).exists():
        raise UsageError(f"{folder} is a run, whose record would be lost; choose another --out.")
    opened = [Run(path, device) for path in runs]
    for run in opened:
        run.check_language()
    texts = read_measures(words, columns, words_of)
    counted = [run for run in opened if issubclass(run.task_class, ClosedTask)]
    source = Run(frequency, device) if frequency is not None else (counted or opened)[0]
    counts = count_words(source)
    if folder is not None:
        make_folder(folder)
    found = []
    for run, name in zip(opened, names_apart(opened), strict=True):
        with progress_bar(f"reading {name}", not json) as advance, open_predictor(run) as predictor:
            surprisals = word_surprisals(predictor, run.tokenizer, texts, boundary, advance)
        if surprisals.unknown:
            total = sum(len(text.words) for text in texts)
            tell(
                f"{name} reads {surprisals.unknown:,} of {total:,} words as unknown, so their surprisal is not that of "
                "the word"
            )
        one = measure_reading(texts, surprisals, counts, config)
        found.append(one._replace(name=name, provenance=run.provenance()))
    about = {
        "table": words,
        "columns": columns.model_dump(mode="json"),
        "frequency": {"run": str(source.path), "words": counts.total, "types": len(counts.counts)},
    }
    record = reading_record(found, config, about)
    note = None if folder is None else write_reading(folder, record)
    present(record, json, lambda: _print(record), note)


def _print(record: dict[str, Any]) -> None:
    write(
        f"{record['words_measured']:,} measured words of {record['texts']} texts; baseline "
        f"{record['baseline']['log_likelihood_per_word']:.4f} nats per word, held out"
    )
    rows = []
    for run in record["runs"]:
        beside = run["less_than_first"]
        rows.append([
            run["name"], f"{run['perplexity']:,.1f}", _interval(run["gain"]),
            "" if beside is None else _interval(beside),
            *(f"{one['coefficient']:+.3f} ({one['error']:.3f})" for one in run["coefficients"]
              if one["name"].startswith("surprisal")),
        ])  # fmt: skip
    lags = [f"per bit, {lag} back" if lag else "per bit (error)" for lag in range(record["config"]["spillover"] + 1)]
    table(["run", "perplexity per word", "gain, nats per word, 95 %", "less than the first", *lags], rows)
    if record["runs"][0]["gain"]["low"] is None:
        write("fewer than five texts give no interval over texts; --resample words gives one over words")


def _interval(value: dict[str, Any]) -> str:
    if value["low"] is None:
        return f"{value['mean']:+.5f}"
    return f"{value['mean']:+.5f} ({value['low']:+.5f} to {value['high']:+.5f})"
