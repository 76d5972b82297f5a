"""``unrolled label``."""

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.common import DeviceOption, JsonOption, ThreadsOption, app, emit, use_threads, write


@app.command()
def label(
    run: Annotated[Path, typer.Argument(help="A run of the task classify or classify_trees.")],
    file: Annotated[str, typer.Argument(help="Texts, one a line; -: standard input.")] = "-",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Give each line of a text the likeliest label: label, probability, text, with tabs between.

    Example: unrolled label runs/sst2 reviews.txt > labels.tsv
    """
    from unrolled.core.errors import UsageError
    from unrolled.data.reading import read_plain
    from unrolled.runs import Run
    from unrolled.tasks.labels import Labels

    use_threads(threads)
    opened = Run(run, device)
    if not isinstance(opened.task, Labels):
        raise UsageError(f"{run} gives no labels; use a run of the task classify or classify_trees.")
    texts = [line for line in read_plain(file).splitlines() if line.strip()]
    if not texts:
        raise UsageError("there is no text to label; give one a line.")
    found = opened.task.label(opened.trained, texts)
    if json:
        rows = zip(found, texts, strict=True)
        emit([{"label": name, "probability": chance, "text": text} for (name, chance), text in rows])
        return
    for (name, chance), text in zip(found, texts, strict=True):
        write(f"{name}\t{chance:.4f}\t{text}")
