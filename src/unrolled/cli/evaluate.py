"""``unrolled eval``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unrolled.cli.common import (
    BackendOption,
    CacheOption,
    DeviceOption,
    DtypeOption,
    DynamicOption,
    JsonOption,
    PrecisionOption,
    PredictOption,
    QuantizeOption,
    RecycleOption,
    SamplesOption,
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
from unrolled.cli.harness import OF_HARNESS, measure_harness
from unrolled.cli.points import OF_POINTS, measure_at
from unrolled.cli.tasks import OF_TASKS, check_alone, measure_task

if TYPE_CHECKING:
    from unrolled.evaluate import EvalResult


@app.command(name="eval")
def evaluate(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    corpus: Annotated[str | None, typer.Option(help="A known corpus or a path; absent: the run's own.")] = None,
    period: Annotated[
        str | None, typer.Option("--slice", help="A slice in time of documents with a date, such as 2020; or next.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, valid or test; or whole, all of a text of your own.")] = "test",
    window: Annotated[int, typer.Option(min=1, help="Tokens at once; does not change the figure.")] = 512,
    columns: Annotated[int, typer.Option(min=1, help="Parallel columns; above 1 is another protocol.")] = 1,
    first: Annotated[
        str, typer.Option(help="scored, or context: the published variant that skips the first token.")
    ] = "scored",
    reset: Annotated[str, typer.Option(help="corpus, or lines: restart the state at every line.")] = "corpus",
    denominator: Annotated[
        str, typer.Option(help="scored, or fed: count the skipped first tokens too, as AWD-LSTM's code does.")
    ] = "scored",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many tokens; with --harness documents of each task.")
    ] = None,
    temperature: TemperatureOption = 1.0,
    dynamic: DynamicOption = None,
    cache: CacheOption = None,
    samples: SamplesOption = None,
    quantize: QuantizeOption = None,
    recycle: RecycleOption = None,
    predict: PredictOption = None,
    settings: SettingsOption = None,
    search: Annotated[
        list[str] | None,
        typer.Option(help="Choose options on the validation split first: temperature, dynamic, cache...; repeatable."),
    ] = None,
    search_tokens: Annotated[
        int | None, typer.Option(min=1, help="Validation tokens for each setting tried.", show_default=False)
    ] = None,
    points: Annotated[
        list[str] | None,
        typer.Option(help="Synthetic problems: measure at name=value,value,... such as length=64,512; repeatable."),
    ] = None,
    rows: Annotated[int | None, typer.Option(min=2, help="Rows of each point; 1,000 by default.")] = None,
    free: Annotated[bool, typer.Option(help="Points: the model runs on its own answers.")] = False,
    harness: Annotated[
        str | None, typer.Option(help="Tasks of the lm-evaluation-harness, by name, with commas between.")
    ] = None,
    include_path: Annotated[
        Path | None, typer.Option(help="Folder with task files of your own; they can run code.")
    ] = None,
    prepare: Annotated[
        str | None, typer.Option(help="Harness: spelling of texts for a vocabulary of words: ptb, split or none.")
    ] = None,
    weights: WeightsOption = "saved",
    dtype: DtypeOption = "float32",
    per_token: Annotated[
        Path | None, typer.Option(help="Write id and log-probability of every token here (.tsv, .tsv.gz).")
    ] = None,
    record: Annotated[Path | None, typer.Option("--out", "-o", help="Write the result record here as JSON.")] = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a trained model on a corpus, as it is or adapting to the text.

    By default every token is scored once, in one column, with the state carried from start to end.

    Example: unrolled eval runs/x --corpus ptb --split test --json

    Example: unrolled eval runs/x --dynamic krause --search dynamic --per-token dynamic.tsv.gz

    Example: unrolled eval runs/x --predict cache=500 --set cache.theta=0.6

    Example: unrolled eval runs/mqar --points length=64,128,512

    Example: unrolled eval runs/x --harness lambada_openai,blimp --limit 200 --json
    """
    from unrolled.core.errors import UsageError
    from unrolled.core.files import ready_output
    from unrolled.evaluate import EvalConfig, evaluate_run
    from unrolled.evaluate.grid import slice_named
    from unrolled.predict import PredictorConfig
    from unrolled.runs import Run

    for output in (record, per_token):
        if output is not None:
            ready_output(output)
    if record is not None and per_token is not None and record.resolve() == per_token.resolve():
        raise UsageError("--per-token and --out name one file; give each its own.")
    if search_tokens is not None and not search:
        raise UsageError("--search-tokens is for a search; name with --search what to choose.")
    use_threads(threads)
    protocol = {
        "split": split, "window": window, "columns": columns, "first": first, "reset": reset,
        "denominator": denominator, "limit": limit,
    }  # fmt: skip
    asked, options = at_test_time(
        predict, settings, protocol, temperature=temperature, dynamic=dynamic, cache=cache, dropout=samples,
        quantize=quantize, recycle=recycle,
    )  # fmt: skip
    opened = Run(run, device, backend, precision, weights)  # type: ignore[arg-type]
    if harness is not None or include_path is not None or prepare is not None:
        check_alone(context, *OF_HARNESS, why="tasks of the harness have a protocol of their own")
        measure_harness(
            opened, harness, include_path, limit, prepare, PredictorConfig.parse(asked), dtype, record, json
        )
        return
    if points or rows is not None or free:
        check_alone(context, *OF_POINTS, why="points of a synthetic problem have options of their own")
        measure_at(opened, points or [], rows, free, split, record, json)
        return
    if not (opened.task_class.language and opened.task_class.reads_text):
        check_alone(context, *OF_TASKS, why=f"{run} is {opened.task_class.noun}, measured by its own figures")
        measure_task(opened, corpus, split, limit, record, json)
        return
    with progress_bar(f"scoring {split}", not json) as advance:
        text = corpus if period is None else slice_named(opened, corpus, period)
        result = evaluate_run(
            opened, text, EvalConfig.parse(options), PredictorConfig.parse(asked), tuple(search or ()),
            search_tokens, per_token, dtype, advance,
        )  # fmt: skip
    if record is not None:
        result.save(record)
    _print_result(result, json)


def _print_result(result: "EvalResult", json: bool) -> None:
    if json:
        emit(result.to_json())
        return
    rows = result.rows()
    for part, found in result.provenance.get("search", {}).items():
        tried = sum(one["nats_per_token"] is not None for one in found["tried"])
        rows.append((f"search of {part}", f"{tried} settings on {found['valid_tokens']:,} validation tokens"))
    chosen = {f"{part}.{key}": value for part, values in result.protocol.options.items() if isinstance(values, dict)
              for key, value in values.items()}  # fmt: skip
    if "temperature" in result.protocol.options:
        chosen["temperature"] = result.protocol.options["temperature"]
    rows += [(name, f"{value:.4g}" if isinstance(value, float) else str(value)) for name, value in chosen.items()]
    table(["", f"{result.provenance['corpus']} {result.provenance['split']}"], rows)
