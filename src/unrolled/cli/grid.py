"""``unrolled grid``."""

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.common import DeviceOption, JsonOption, ThreadsOption, app, emit, progress_bar, table, use_threads


@app.command()
def grid(
    runs: Annotated[list[Path], typer.Argument(help="Run directories, a row each.")],
    corpus: Annotated[
        str | None, typer.Option(help="Documents with a date: a file, folder or pattern; absent: the first run's.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="With --corpus: where the date is, a field (date) or part of file names (%Y-%m).")
    ] = None,
    field: Annotated[
        str | None, typer.Option(help="With --corpus: the field of the text; absent: the first run's, or text.")
    ] = None,
    slices: Annotated[
        str | None, typer.Option(help="year, quarter, month, or days with commas between; absent: the first run's.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, valid or test of each slice; or whole.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many tokens of each slice.")] = None,
    record: Annotated[Path | None, typer.Option("--out", "-o", help="Write every figure here as JSON.")] = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Measure runs on slices of a text in time: one row a model, one column a period.

    Perplexity per token where all runs have one vocabulary, else bits per character; every figure is in the JSON.

    Example: unrolled grid runs/2018 runs/2019 runs/2020 --out grid.json

    Example: unrolled grid runs/x --corpus news.jsonl --time date --slices quarter
    """
    from unrolled.core.errors import UsageError
    from unrolled.core.files import ready_output, write_json
    from unrolled.data import CorpusConfig
    from unrolled.evaluate import EvalConfig, evaluate_grid
    from unrolled.runs import Run

    if corpus is None and (time is not None or field is not None):
        raise UsageError("--time and --field say how --corpus is read; name it, or leave them out.")
    if record is not None:
        ready_output(record)
    use_threads(threads)
    opened = [Run(path, device) for path in runs]
    own = opened[0].config.corpus
    chosen = own
    if corpus is not None:  # cut as the first run's, where that has dates, so that what it learned is not measured
        same = own.model_dump(exclude={"name", "base", "slice", "train", "valid", "test"}) if own.time else {}
        given = {"path": corpus, "time": time or own.time or "date", "field": field or own.field}
        chosen = CorpusConfig.parse({**same, **given})
    if slices is not None:
        cut = slices if slices in ("year", "quarter", "month") else [one.strip() for one in slices.split(",")]
        chosen = CorpusConfig.parse({**chosen.model_dump(), "slices": cut, "slice": None})
    config = EvalConfig.parse({"split": split, "limit": limit})
    with progress_bar("measuring", not json) as advance:
        found = evaluate_grid(opened, chosen, config, advance)
    if record is not None:
        write_json(record, found.to_json())
    if json:
        emit(found.to_json())
        return
    rows = []
    for run, cells in zip(opened, found.cells, strict=True):
        figures = [cell.result.figures()[found.figure] for cell in cells]
        rows.append([str(run.path), *("-" if one is None else f"{one:,.4g}" for one in figures)])
        if all(cell.unknown is not None for cell in cells) and (not found.shared or run is opened[-1]):
            rows.append(["unknown words", *(f"{cell.unknown:.2%}" for cell in cells)])
    table([found.figure.replace("_", " "), *found.slices], rows)
