"""``unrolled store``."""

from pathlib import Path
from typing import Annotated

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
    """
    from unrolled.evaluate.storing import store_text
    from unrolled.runs import Run

    use_threads(threads)
    opened = Run(run, device, backend, precision, weights)  # type: ignore[arg-type]
    with progress_bar("storing", not json) as advance:
        info = store_text(opened, target, corpus, split, numbers, columns, clusters, limit, advance)
    size = sum(file.stat().st_size for file in target.iterdir())
    if json:
        emit({"kind": "store", "folder": str(target), "bytes": size, **info.model_dump(mode="json")})
        return
    rows = [
        ("text", f"{info.corpus} {info.split}"), ("tokens", f"{info.entries:,}"), ("width", f"{info.width:,}"),
        ("numbers", info.dtype), ("clusters", f"{info.clusters:,}"), ("bytes", f"{size:,}"),
    ]  # fmt: skip
    table(["", str(target)], rows)
