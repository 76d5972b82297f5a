"""``unrolled eval``."""

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.common import (
    BackendOption,
    DeviceOption,
    JsonOption,
    PrecisionOption,
    app,
    emit,
    progress_bar,
    table,
)


@app.command(name="eval")
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    corpus: Annotated[str | None, typer.Option(help="A known corpus or a path; absent: the run's own.")] = None,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    window: Annotated[int, typer.Option(min=1, help="Tokens at once; does not change the figure.")] = 512,
    columns: Annotated[int, typer.Option(min=1, help="Parallel columns; above 1 is another protocol.")] = 1,
    first: Annotated[
        str, typer.Option(help="scored, or context: the published variant that skips the first token.")
    ] = "scored",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many tokens.")] = None,
    dtype: Annotated[str, typer.Option(help="float32 or float64 arithmetic.")] = "float32",
    per_token: Annotated[
        Path | None, typer.Option(help="Write id and log-probability of every token here (.tsv, .tsv.gz).")
    ] = None,
    record: Annotated[Path | None, typer.Option("--out", "-o", help="Write the result record here as JSON.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    device: DeviceOption = "auto",
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a trained model on a corpus.

    By default every token is scored once, in one column, with the state carried from start to end.

    Example: unrolled eval runs/x --corpus ptb --split test --json
    """
    import torch

    from unrolled import api
    from unrolled.core.files import make_folder
    from unrolled.runs import Run

    if record is not None:
        make_folder(record.parent)
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    opened = Run(run, device, backend, precision)
    with progress_bar(f"scoring {split}", not json) as advance:
        result = api.evaluate(
            opened, corpus, device, per_token, dtype, advance,
            split=split, window=window, columns=columns, first=first, limit=limit,
        )  # fmt: skip
    if record is not None:
        result.save(record)
    if json:
        emit(result.to_json())
    else:
        table(["", f"{result.provenance['corpus']} {split}"], result.rows())
