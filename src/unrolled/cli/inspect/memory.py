"""``unrolled inspect memory``."""

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

_SHOWN_LAGS = (1, 2, 5, 10, 20, 50, 100, 200)


@verbs.command()
def memory(
    runs: RunsArgument,
    longest: Annotated[int, typer.Option(min=1, help="Longest truncated past; tried are 1, 2, 4, ... and this.")] = 512,
    lags: Annotated[int, typer.Option(min=1, help="Tokens back for gradients and autocorrelations.")] = 200,
    places: Annotated[int, typer.Option(min=2, help="Tokens that are predicted after truncated pasts.")] = 300,
    gradients: Annotated[int, typer.Option(min=2, help="Of these, those whose gradients are taken.")] = 100,
    tolerance: Annotated[float, typer.Option(help="Excess in bits below which a past is long enough.")] = 0.01,
    batch: Annotated[int, typer.Option(min=1, help="Places at once; bounds the memory.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of the places.")] = 1,
    text: TextOption = None,
    corpus: CorpusOption = None,
    split: SplitOption = "test",
    limit: LimitOption = 20_000,
    folder: FolderOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """How far back models use the text: loss after truncated pasts, gradients by lag, autocorrelation of states.

    Example: unrolled inspect memory runs/lstm runs/qrnn --out memory
    """
    from unrolled.analyse import (
        MemoryConfig,
        measure_memory,
        memory_record,
        open_reader,
        write_memory_use,
    )

    options = {
        "places": places, "gradients": gradients, "longest": longest, "lags": lags, "tolerance": tolerance,
        "batch": batch, "seed": seed,
    }  # fmt: skip
    config = MemoryConfig.parse(options)
    use_threads(threads)
    found = []
    for run, name, passage, advance in passages(open_runs(runs, device, folder), text, corpus, split, limit, not json):
        one = measure_memory(open_reader(run), passage, config, advance)
        found.append(one._replace(name=name, provenance=provenance(run, passage.origin)))
    record = memory_record(found)
    note = None if folder is None else write_memory_use(folder, record)
    present(record, json, lambda: _print(record), note)


def _print(record: dict[str, Any]) -> None:
    runs = record["runs"]
    rows = [["loss after the whole past, bits", *(f"{run['whole_bits']:.4f}" for run in runs)]]
    for i, point in enumerate(runs[0]["contexts"]):
        cells = [run["contexts"][i] for run in runs]
        shown = [f"{one['mean']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f})" for one in cells]
        rows.append([f"excess after the last {point['context']} tokens", *shown])
    within = f"effective length, tokens (excess below {record['config']['tolerance']:g} bits)"
    rows.append([within, *(_lag(run["effective_length"], "more than tried") for run in runs)])
    for lag in _SHOWN_LAGS:
        if lag <= len(runs[0]["gradients"]):
            norms = [run["gradients"][lag - 1]["mean"] for run in runs]
            rows.append([f"gradient's norm at lag {lag}", *(f"{norm:.3e}" for norm in norms)])
    rows += [
        [f"gradient below a {share} of lag 1, lag", *(_lag(run["gradient_lags"][share]) for run in runs)]
        for share in ("half", "tenth", "hundredth")
    ]
    table(["mean and 95 % interval", *(run["name"] for run in runs)], rows)
    write("")
    rows = [[run["name"], key, _lag(lag)] for run in runs for key, lag in run["autocorrelation_lags"].items()]
    table(["run", "state", "autocorrelation below 1/e, lag"], rows)


def _lag(lag: int | None, absent: str = "-") -> str:
    return absent if lag is None else str(lag)
