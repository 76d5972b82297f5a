"""``unrolled inspect gates``."""

from typing import Annotated, Any

import typer

from unrolled.cli.common import DeviceOption, JsonOption, ThreadsOption, table, use_threads
from unrolled.cli.inspect.common import (
    CorpusOption,
    FolderOption,
    LimitOption,
    RunsArgument,
    SplitOption,
    TextOption,
    open_runs,
    passages,
    present,
    provenance,
    verbs,
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
    from unrolled.analyse import measure_saturation, open_reader, saturation_record, write_saturation

    use_threads(threads)
    found = []
    for run, name, passage, advance in passages(open_runs(runs, device, folder), text, corpus, split, limit, not json):
        one = measure_saturation(open_reader(run), passage, low, high, advance)
        found.append(one._replace(name=name, provenance=provenance(run, passage.origin)))
    record = saturation_record(found)
    note = None if folder is None else write_saturation(folder, found, record)
    present(record, json, lambda: _print(record, low, high), note)


def _print(record: dict[str, Any], low: float, high: float) -> None:
    heads = ["run", "gate", "units", f"below {low:g}", f"above {high:g}", "mean", "units mostly below", "above"]
    rows = []
    for run in record["runs"]:
        for key, use in run["gates"].items():
            shares = [f"{use[part]:.4f}" for part in ("left", "right", "mean")]
            mostly = [str(use[f"units_mostly_{side}"]) for side in ("left", "right")]
            rows.append([run["name"], key, str(use["units"]), *shares, *mostly])
    table(heads, rows)
