"""``unrolled inspect gates``."""

from typing import Annotated

import typer

from unrolled.cli.common import DeviceOption, JsonOption, ThreadsOption, emit, progress_bar, table, use_threads
from unrolled.cli.inspect import verbs
from unrolled.cli.inspect_common import (
    CorpusOption,
    FolderOption,
    LimitOption,
    RunsArgument,
    SplitOption,
    TextOption,
    names_apart,
    open_runs,
    provenance,
)


@verbs.command()
def gates(
    runs: RunsArgument,
    text: TextOption = None,
    corpus: CorpusOption = None,
    split: SplitOption = "test",
    limit: LimitOption = 20_000,
    low: Annotated[float, typer.Option(help="A gate below this is left-saturated.")] = 0.1,
    high: Annotated[float, typer.Option(help="A gate above this is right-saturated.")] = 0.9,
    folder: FolderOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """How often gates are shut or open: shares of tokens, by unit, gate and layer (Karpathy et al. 2015).

    Example: unrolled inspect gates runs/lstm runs/gru --out gates
    """
    from unrolled.analyse import measure_saturation, open_reader, passage_of_run, saturation_record, write_saturation

    use_threads(threads)
    opened = open_runs(runs, device, folder)
    found = []
    for run, name in zip(opened, names_apart(opened), strict=True):
        passage = passage_of_run(run, text, corpus, split, limit)
        with progress_bar(f"reading {name}", not json) as advance:
            one = measure_saturation(open_reader(run), passage, low, high, advance)
        found.append(one._replace(name=name, provenance=provenance(run, passage.origin)))
    record = saturation_record(found)
    note = None if folder is None else write_saturation(folder, found, record)
    if json:
        emit(record)
    else:
        heads = ["run", "gate", "units", f"below {low:g}", f"above {high:g}", "mean", "units mostly below", "above"]
        rows = []
        for run in record["runs"]:
            for key, use in run["gates"].items():
                shares = [f"{use[part]:.4f}" for part in ("left", "right", "mean")]
                mostly = [str(use[f"units_mostly_{side}"]) for side in ("left", "right")]
                rows.append([run["name"], key, str(use["units"]), *shares, *mostly])
        table(heads, rows)
    if note is not None:
        typer.echo(note, err=True)
