"""``unrolled inspect``: recovery; the other probes are in files of their own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unrolled.cli.common import (
    DeviceOption,
    JsonOption,
    ThreadsOption,
    app,
    emit,
    progress_bar,
    table,
    use_threads,
    write,
)

if TYPE_CHECKING:
    from unrolled.analyse import Recovery

verbs = typer.Typer(
    help="Look into trained models: probes of what they do. For loss, entropy and predictions of each token see "
    "`unrolled score --unit token`.",
    no_args_is_help=True,
)
app.add_typer(verbs, name="inspect")


@verbs.command()
def recovery(
    runs: Annotated[list[Path], typer.Argument(help="Run directories; each is compared with the first.")],
    corpus: Annotated[str | None, typer.Option(help="A known corpus or a path; absent: each run's own.")] = None,
    split: Annotated[str, typer.Option(help="train, valid or test; or whole, all of a text of your own.")] = "test",
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
    folder: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write recovery.tsv, record.json and the plots into this folder."),
    ] = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Measure how fast models recover from a wrong input: excess loss and likeness of states after it.

    Example: unrolled inspect recovery runs/lstm runs/mlstm --out recovery
    """
    from unrolled.analyse import (
        RecoveryConfig,
        recovery_of_run,
        recovery_record,
        summarise_recovery,
        write_recovery,
    )
    from unrolled.core.files import make_folder
    from unrolled.runs import Run

    options = {
        "split": split, "limit": limit, "places": places, "length": length, "corruption": corruption,
        "lags": lags, "columns": columns, "batch": batch, "seed": seed,
    }  # fmt: skip
    config = RecoveryConfig.parse(options)
    use_threads(threads)
    opened = [Run(run, device) for run in runs]
    for run in opened:
        _ = run.model  # a run that cannot be measured is refused before the others have taken minutes
    if folder is not None:
        make_folder(folder)
    found = []
    for run in opened:
        with progress_bar(f"reading {split}, {run.path.name}", not json) as advance:
            found.append(recovery_of_run(run, corpus, config, advance))
    found = _named_apart(found)
    summaries = [summarise_recovery(one) for one in found]
    record = recovery_record(found, summaries)
    note = None if folder is None else write_recovery(folder, found, summaries, record)
    if json:
        emit(record)
    else:
        _print(record)
    if note is not None:
        typer.echo(note, err=True)


def _named_apart(found: "list[Recovery]") -> "list[Recovery]":
    """Runs whose folders have one name are called by their paths."""
    names = [one.name for one in found]
    return [one._replace(name=one.provenance["run"]) if names.count(one.name) > 1 else one for one in found]


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
