"""``unrolled eval``."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unrolled.cli.common import (
    BackendOption,
    CacheOption,
    DeviceOption,
    DtypeOption,
    DynamicOption,
    JsonOption,
    PrecisionOption,
    QuantizeOption,
    SamplesOption,
    SettingsOption,
    TemperatureOption,
    ThreadsOption,
    WeightsOption,
    app,
    emit,
    progress_bar,
    table,
    test_time,
    use_threads,
    write,
)
from unrolled.cli.pairs import check_alone, check_given, measure_pairs
from unrolled.cli.tasks import OF_TASKS, measure_task

if TYPE_CHECKING:
    from unrolled.evaluate import Difference, EvalResult


@app.command(name="eval")
def evaluate(
    context: typer.Context,
    run: Annotated[
        Path | None, typer.Argument(help="A run directory; with --against also a per-token file.", show_default=False)
    ] = None,
    corpus: Annotated[str | None, typer.Option(help="A known corpus or a path; absent: the run's own.")] = None,
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
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many tokens.")] = None,
    temperature: TemperatureOption = 1.0,
    dynamic: DynamicOption = None,
    cache: CacheOption = None,
    samples: SamplesOption = None,
    quantize: QuantizeOption = None,
    settings: SettingsOption = None,
    search: Annotated[
        list[str] | None,
        typer.Option(help="Choose settings on the validation split first: temperature, dynamic, cache; repeatable."),
    ] = None,
    search_tokens: Annotated[
        int | None, typer.Option(min=1, help="Validation tokens for each setting tried.", show_default=False)
    ] = None,
    weights: WeightsOption = "saved",
    dtype: DtypeOption = "float32",
    per_token: Annotated[
        Path | None, typer.Option(help="Write id and log-probability of every token here (.tsv, .tsv.gz).")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="A per-token file: test the difference from it, token by token.")
    ] = None,
    ensemble: Annotated[
        list[Path] | None,
        typer.Option(help="In place of a run: folders of per-token files to mix (valid/ and test/); repeatable."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="In place of a corpus: minimal pairs; blimp, or JSON lines, a folder or .zip of such."),
    ] = None,
    prepare: Annotated[
        str | None,
        typer.Option(
            help="Of pairs: none, ptb (Penn Treebank spelling) or split (punctuation); absent: by the vocabulary."
        ),
    ] = None,
    normalize: Annotated[
        str, typer.Option(help="Of pairs: none compares log-probabilities, tokens their means per token.")
    ] = "none",
    record: Annotated[Path | None, typer.Option("--out", "-o", help="Write the result record here as JSON.")] = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a trained model on a corpus, as it is or adapting to the text, or on minimal pairs; mix or compare.

    By default every token is scored once, in one column, with the state carried from start to end.

    Example: unrolled eval runs/x --corpus ptb --split test --json

    Example: unrolled eval runs/x --dynamic krause --search dynamic --against static.tsv.gz

    Example: unrolled eval runs/x --task blimp --out blimp.json
    """
    from unrolled.core.errors import UsageError

    check_given(context, task)
    if ensemble:
        check_alone(context, "ensemble", "json")
        _mix(ensemble, json)
        return
    if run is None:
        raise UsageError("nothing to measure: give a run directory, or --ensemble with folders of per-token files.")
    if run.is_file() and against is not None:
        check_alone(context, "run", "against", "json")
        _difference(run, against, json)
        return

    from unrolled import api
    from unrolled.core.config import apply_settings
    from unrolled.core.files import ready_output
    from unrolled.runs import Run

    read = [against] if against is not None else []
    for output in (record, per_token):
        if output is not None:
            ready_output(output, *read)
    if record is not None and per_token is not None and record.resolve() == per_token.resolve():
        raise UsageError("--per-token and --out name one file; give each its own.")
    use_threads(threads)
    if task is not None:
        options = test_time(
            temperature, dynamic, cache, samples, quantize, pairs={"prepare": prepare, "normalize": normalize}
        )
        opened = Run(run, device, backend, precision, weights)  # type: ignore[arg-type]
        measure_pairs(opened, task, apply_settings(options, settings or ()), dtype, record, json)
        return
    opened = Run(run, device, backend, precision, weights)  # type: ignore[arg-type]
    if not opened.task_class.language:
        check_alone(context, *OF_TASKS, why=f"{run} is {opened.task_class.noun}, measured by its own figures")
        measure_task(opened, corpus, split, limit, record, json)
        return
    if search_tokens is not None and not search:
        raise UsageError("--search-tokens is for a search; name with --search what to choose.")
    options = test_time(
        temperature, dynamic, cache, samples, quantize, split=split, window=window, columns=columns, first=first,
        reset=reset, denominator=denominator, limit=limit,
    )  # fmt: skip
    options = apply_settings(options, settings or ())
    with tempfile.TemporaryDirectory() as folder:
        tokens = per_token
        if tokens is None and against is not None:
            tokens = Path(folder) / f"{run.resolve().name}.tsv"
        with progress_bar(f"scoring {split}", not json) as advance:
            result = api.evaluate(
                opened, corpus, device, tokens, dtype, advance, tuple(search or ()), search_tokens, **options
            )
        if record is not None:
            result.save(record)
        if against is None or not json:  # else one object holds both
            _print_result(result, json)
        if against is not None and tokens is not None:
            _difference(tokens, against, json, result)


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


def _difference(first: Path, second: Path, json: bool, result: "EvalResult | None" = None) -> None:
    from unrolled.evaluate import compare_files

    difference = compare_files(first, second)
    verdict = difference.verdict(_name(first), _name(second))
    if json:
        found = {**difference._asdict(), "verdict": verdict}
        emit(found if result is None else {**result.to_json(), "against": found})
    else:
        write(verdict)


def _name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".tsv").removesuffix(".txt")


def _mix(folders: list[Path], json: bool) -> None:
    from unrolled.evaluate import fit_ensemble

    found = fit_ensemble(folders)
    last = list(found.tokens)[-1]
    verdict = found.against_best.verdict("the ensemble", found.best)
    if json:
        figures = {
            "members": {s: {n: f._asdict() for n, f in each.items()} for s, each in found.members.items()},
            "uniform": {s: f._asdict() for s, f in found.uniform.items()},
            "fitted": {s: f._asdict() for s, f in found.fitted.items()},
        }
        against = _difference_json(found.against_best, found.best, last)
        emit({"kind": "ensemble", "tokens": found.tokens, "weights": found.weights, **figures, "against": against})
        return

    def row(name: str, figures: dict[str, Any], weight: str) -> list[str]:
        cells = [f"{f.perplexity:.2f}" for f in figures.values()]
        shown = figures[last].interval
        return [name, *cells, "" if shown is None else f"{shown[0]:.2f} to {shown[1]:.2f}", weight]

    rows = []
    for name in found.members[last]:
        weight = "" if found.weights is None else f"{found.weights[name]:.4f}"
        rows.append(row(name, {split: each[name] for split, each in found.members.items()}, weight))
    rows.append(row("uniform weights", found.uniform, ""))
    if found.fitted:
        rows.append(row("weights fitted on valid", found.fitted, ""))
    table(["perplexity", *found.tokens, f"95 % interval, {last}", "weight"], rows)
    write(f"On {last}, {verdict}")


def _difference_json(difference: "Difference", best: str, split: str) -> dict[str, Any]:
    return {"model": best, "split": split, **difference._asdict()}
