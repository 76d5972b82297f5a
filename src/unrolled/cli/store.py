"""``unrolled store``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unrolled.cli.common import (
    BackendOption,
    DeviceOption,
    JsonOption,
    PrecisionOption,
    ThreadsOption,
    WeightsOption,
    app,
    emit,
    progress_bar,
    table,
    use_threads,
)


@app.command()
def store(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    target: Annotated[Path, typer.Option("--out", "-o", help="The folder, which must not exist.")],
    corpus: Annotated[str | None, typer.Option(help="A known corpus or a path; absent: the run's own.")] = None,
    split: Annotated[str, typer.Option(help="train, valid or test; or whole, all of a text of your own.")] = "train",
    numbers: Annotated[str, typer.Option("--numbers", help="float16 or float32: what is kept.")] = "float16",
    columns: Annotated[
        int, typer.Option(min=1, help="Parts read side by side, each begun anew: faster, and a tail is left out.")
    ] = 1,
    clusters: Annotated[
        int, typer.Option(min=0, help="Groups of near states, for neighbours.clusters; n/100 to n/15 of n tokens.")
    ] = 0,
    documents: Annotated[
        Path | None, typer.Option(help="A folder of texts, in place of a corpus: the state after each is kept.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many tokens.")] = None,
    weights: WeightsOption = "saved",
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    json: JsonOption = False,
) -> None:
    """Keep what a model makes of a text, to be looked up while it reads another one.

    The folder has the hidden state that predicts each token of the text, and the tokens. It serves the model that made
    it alone.

    Example: unrolled store runs/x --corpus wikitext-2 --out stores/wt2

    Example: unrolled eval runs/x --predict neighbours=stores/wt2 --search neighbours

    Example: unrolled store runs/x --documents notes --out stores/notes
    """
    from unrolled.core.errors import UsageError
    from unrolled.evaluate.storing import store_documents, store_text
    from unrolled.runs import Run

    use_threads(threads)
    opened = Run(run, device, backend, precision, weights)  # type: ignore[arg-type]
    if documents is not None:
        given = (corpus, split != "train", numbers != "float16", columns != 1, clusters, limit)
        if any(given):
            raise UsageError("documents are kept as they are: give --documents and --out alone.")
        with progress_bar("reading documents", not json) as advance:
            found = store_documents(opened, target, documents, advance)
        _tell(target, found.model_dump(mode="json"), [("documents", found.documents), ("tokens", found.tokens)], json)
        return
    with progress_bar("storing", not json) as advance:
        info = store_text(opened, target, corpus, split, numbers, columns, clusters, limit, advance)
    rows = [
        ("text", f"{info.corpus} {info.split}"), ("tokens", info.entries), ("width", info.width),
        ("numbers", info.dtype), ("clusters", info.clusters),
    ]  # fmt: skip
    _tell(target, info.model_dump(mode="json"), rows, json)


def _tell(folder: Path, info: dict[str, Any], rows: list[tuple[str, Any]], json: bool) -> None:
    """Print what was stored. info: plain JSON values. rows: for people."""
    size = sum(file.stat().st_size for file in folder.iterdir())
    if json:
        emit({"kind": "store", "folder": str(folder), "bytes": size, **info})
        return
    shown = [(name, f"{value:,}" if isinstance(value, int) else value) for name, value in [*rows, ("bytes", size)]]
    table(["", str(folder)], shown)
