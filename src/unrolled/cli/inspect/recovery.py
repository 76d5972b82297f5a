"""``unrolled inspect recovery``."""

from typing import Annotated, Any

import typer

from unrolled.cli.common import (
    DeviceOption,
    JsonOption,
    ThreadsOption,
    progress_bar,
    table,
    use_threads,
    write,
)
from unrolled.cli.inspect.common import (
    CorpusOption,
    FolderOption,
    RunsArgument,
    SplitOption,
    names_apart,
    open_runs,
    present,
    verbs,
)


@verbs.command()
def recovery(
    runs: RunsArgument,
    corpus: CorpusOption = None,
    split: SplitOption = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many tokens.")] = None,
    places: Annotated[int, typer.Option(min=10, help="Places in the text that are corrupted, each by itself.")] = 500,
    length: Annotated[int, typer.Option(min=1, help="Symbols corrupted at a place.")] = 1,
    corruption: Annotated[
        str, typer.Option(help="flip (another symbol), random (one by its frequency) or delete.")
    ] = "flip",
    lags: Annotated[int, typer.Option(min=1, help="Tokens after the corruption that are looked at.")] = 200,
    columns: Annotated[
        int, typer.Option(min=1, help="Parallel columns in which the text is read; more is faster, with shorter pasts.")
    ] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Places continued at once; bounds the memory.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of places, replacements and intervals.")] = 1,
    folder: FolderOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Measure how fast models recover from a wrong input: excess loss and likeness of states after it.

    Each run is compared with the first.

    Example: unrolled inspect recovery runs/lstm runs/mlstm --out recovery
    """
    from unrolled.analyse import (
        RecoveryConfig,
        recovery_of_run,
        recovery_record,
        summarise_recovery,
        write_recovery,
    )

    options = {
        "split": split, "limit": limit, "places": places, "length": length, "corruption": corruption,
        "lags": lags, "columns": columns, "batch": batch, "seed": seed,
    }  # fmt: skip
    config = RecoveryConfig.parse(options)
    use_threads(threads)
    opened = open_runs(runs, device, folder)
    found = []
    for run, name in zip(opened, names_apart(opened), strict=True):
        with progress_bar(f"reading {name}", not json) as advance:
            found.append(recovery_of_run(run, corpus, config, advance)._replace(name=name))
    summaries = [summarise_recovery(one) for one in found]
    record = recovery_record(found, summaries)
    note = None if folder is None else write_recovery(folder, found, summaries, record)
    present(record, json, lambda: _print(record), note)


def _print(record: dict[str, Any]) -> None:
    from unrolled.analyse import labels

    shown = labels(record["config"]["lags"])
    runs = record["runs"]
    rows = [[label, *(_cell(run["figures"][name], name) for run in runs)] for name, label in shown.items()]
    table(["mean and 95 % interval", *(run["name"] for run in runs)], rows)
    paired = [one for one in record["differences"] if one["figures"] is not None]
    if paired:
        rows = [[label, *(_cell(one["figures"][name], name, "+") for one in paired)] for name, label in shown.items()]
        write("")
        table([f"less {runs[0]['name']}", *(one["name"] for one in paired)], rows)
    for one in record["differences"]:
        if one["unpaired"] is not None:
            write(f"{one['unpaired']}: no paired difference.")


def _cell(figure: dict[str, float | None], name: str, sign: str = "") -> str:
    """``1.234 (1.1 to 1.4)``; lags without decimals, and a dash for what is not reached within the lags."""
    form = f"{sign}.0f" if name.endswith("_lag") else f"{sign}.4f"
    value, low, high = ("-" if x is None else format(x, form) for x in (figure["value"], figure["low"], figure["high"]))
    return f"{value} ({low} to {high})" if (low, high) != ("-", "-") else value
