"""``unrolled pairs``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unrolled.cli.common import (
    BackendOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    PrecisionOption,
    PredictOption,
    QuantizeOption,
    SettingsOption,
    TemperatureOption,
    ThreadsOption,
    WeightsOption,
    app,
    at_test_time,
    emit,
    progress_bar,
    table,
    use_threads,
)

if TYPE_CHECKING:
    from unrolled.evaluate.text.pairs import Group


@app.command()
def pairs(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    task: Annotated[str, typer.Argument(help="blimp, or JSON lines, a folder or a .zip of such.")],
    prepare: Annotated[
        str | None,
        typer.Option(help="none, ptb (Penn Treebank spelling) or split (punctuation); absent: by the vocabulary."),
    ] = None,
    normalize: Annotated[
        str, typer.Option(help="none compares log-probabilities, tokens their means per token.")
    ] = "none",
    temperature: TemperatureOption = 1.0,
    quantize: QuantizeOption = None,
    predict: PredictOption = None,
    settings: SettingsOption = None,
    weights: WeightsOption = "saved",
    dtype: DtypeOption = "float32",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the record here as JSON.")] = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a model on minimal pairs: how often the good sentence is more probable than the bad one.

    Each sentence is scored by itself. The keys of a pair's sentences are --set pairs.good=KEY and pairs.bad=KEY.

    Example: unrolled pairs runs/x blimp --out blimp.json
    """
    from unrolled.core.files import ready_output
    from unrolled.core.registry import unknown_name
    from unrolled.evaluate import PairsConfig, compare_pairs, open_predictor, read_pairs
    from unrolled.evaluate.of_run import DTYPES
    from unrolled.predict import PredictorConfig
    from unrolled.runs import Run

    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    if out is not None:
        ready_output(out)
    use_threads(threads)
    options, others = at_test_time(
        predict, settings, {"pairs": {"prepare": prepare, "normalize": normalize}}, temperature=temperature,
        quantize=quantize,
    )  # fmt: skip
    opened = Run(run, device, backend, precision, weights)  # type: ignore[arg-type]
    config = PairsConfig.parse(others.pop("pairs"))
    if others:
        raise unknown_name("config key", next(iter(others)), ["pairs", "predict"])
    given = read_pairs(task, config.good, config.bad)
    with (
        open_predictor(opened, PredictorConfig.parse(options), DTYPES[dtype]) as predictor,
        progress_bar(f"scoring {task}", not json) as advance,
    ):
        result = compare_pairs(predictor, opened.tokenizer, given, config, task, opened.provenance(), advance)
    if out is not None:
        result.save(out)
    if json:
        emit(result.to_json())
        return
    rows = [[*_cells(group), group.inside or ""] for group in (*result.paradigms, *result.phenomena, *result.fields)]
    rows.append([*_cells(result.overall), f"prepared: {result.protocol['prepare']}"])
    table(["", "accuracy", "95 % interval", "pairs", "ties", "same tokens", "with unknown", "of"], rows)


def _cells(group: "Group") -> list[str]:
    interval = "" if group.interval is None else f"{group.interval[0]:.1%} to {group.interval[1]:.1%}"
    counts = (group.pairs, group.ties, group.same_tokens, group.unknown)
    return [group.name, f"{group.accuracy:.1%}", interval, *(f"{count:,}" for count in counts)]
