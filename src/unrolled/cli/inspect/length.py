"""``unrolled inspect length``."""

from typing import Annotated, Any

import typer

from unrolled.cli.common import DeviceOption, JsonOption, ThreadsOption, table, use_threads, write
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
def length(
    runs: RunsArgument,
    length: Annotated[int, typer.Option(min=4, help="Tokens of each stretch that is read.")] = 4096,
    texts: Annotated[int, typer.Option(min=2, help="Stretches, spread over the text.")] = 32,
    trained: Annotated[
        int | None,
        typer.Option(min=2, help="Tokens that training reads without a break; absent: each run's stream.window."),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Bits that length may cost before that counts.")] = 0.01,
    factor: Annotated[
        float, typer.Option(help="Times the largest norm within the trained length, above which a norm is out.")
    ] = 2.0,
    batch: Annotated[int, typer.Option(min=1, help="Stretches at once; bounds the memory.")] = 32,
    text: TextOption = None,
    corpus: CorpusOption = None,
    split: SplitOption = "test",
    limit: LimitOption = 1_000_000,
    folder: FolderOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """What models do in texts longer than those of training: loss and norm of the state by position.

    The excess is that over the same tokens after a past within the trained length.

    Example: unrolled inspect length runs/gla runs/mamba --length 4096 --out length
    """
    from unrolled.analyse import LengthConfig, length_record, measure_length, open_reader, write_length_use
    from unrolled.core.notes import note as tell

    use_threads(threads)
    found = []
    for run, name, passage, advance in passages(open_runs(runs, device, folder), text, corpus, split, limit, not json):
        options = {"length": length, "texts": texts, "tolerance": tolerance, "factor": factor, "batch": batch}
        config = LengthConfig.parse({**options, "trained": trained or run.config.stream.window})
        if trained is None and run.config.stream.carry:
            tell(
                f"{name} was trained with its state carried from window to window of {config.trained} tokens, so it "
                "has read further than that; say how far with --trained"
            )
        one = measure_length(open_reader(run), passage, config, advance)
        found.append(one._replace(name=name, provenance=provenance(run, passage.origin)))
    record = length_record(found)
    note = None if folder is None else write_length_use(folder, record)
    present(record, json, lambda: _print(record), note)


def _print(record: dict[str, Any]) -> None:
    for run in record["runs"]:
        write(f"{run['name']}, trained on {run['trained']} tokens")
        rows = []
        for part in run["bins"]:
            cost = part["excess"]
            shown = "" if cost is None else f"{cost['mean']:+.4f} ({cost['low']:+.4f} to {cost['high']:+.4f})"
            norms = [_largest(run, part["to"])] if part["to"] in run["points"] else [""]
            rows.append([f"{part['from']}-{part['to']}", f"{part['mean']:.4f}", shown, *norms])
        table(["positions", "bits", "excess, bits, and 95 % interval", "largest norm"], rows)
        tolerance, factor = record["config"]["tolerance"], record["config"]["factor"]
        write(
            f"excess above {tolerance:g} bits from position {run['loss_out'] or '-'}, a norm above {factor:g} times "
            f"that within the trained length from {run['norm_out'] or '-'}"
        )
        write("")


def _largest(run: dict[str, Any], tokens: int) -> str:
    """The largest norm after so many tokens, and whose it is."""
    at = run["points"].index(tokens)
    key = max(run["norms"], key=lambda key: run["norms"][key][at])
    return f"{run['norms'][key][at]:.4g} ({key})"
