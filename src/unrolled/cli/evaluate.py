"""``unrolled eval``."""

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.common import (
    BackendOption,
    DeviceOption,
    JsonOption,
    PrecisionOption,
    app,
    corpus_config,
    emit,
    open_run,
    progress_bar,
    table,
)


@app.command(name="eval")
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    corpus: Annotated[str | None, typer.Option(help="A known corpus or a path; absent: the run's own.")] = None,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    window: Annotated[int, typer.Option(min=1, help="Tokens at once; does not change the figure.")] = 512,
    columns: Annotated[int, typer.Option(min=1, help="Parallel columns; above 1 is another protocol.")] = 1,
    first: Annotated[
        str, typer.Option(help="scored, or context: the published variant that skips the first token.")
    ] = "scored",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many tokens.")] = None,
    dtype: Annotated[str, typer.Option(help="float32 or float64 arithmetic.")] = "float32",
    per_token: Annotated[
        Path | None, typer.Option(help="Write id and log-probability of every token here (.tsv, .tsv.gz).")
    ] = None,
    record: Annotated[Path | None, typer.Option("--out", "-o", help="Write the result record here as JSON.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    device: DeviceOption = "auto",
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a trained model on a corpus.

    By default every token is scored once, in one column, with the state carried from start to end.

    Example: unrolled eval runs/x --corpus ptb --split test --json
    """
    import torch

    from unrolled.core.errors import UsageError
    from unrolled.core.files import make_folder
    from unrolled.core.registry import unknown_name
    from unrolled.evaluate import EvalConfig, NeuralPredictor, evaluate_static

    if dtype not in ("float32", "float64"):
        raise unknown_name("dtype", dtype, ["float32", "float64"])
    config = EvalConfig.parse({"split": split, "window": window, "columns": columns, "first": first, "limit": limit})
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    opened = open_run(run, device, backend, precision)
    model = opened.model.to(getattr(torch, dtype))
    text, splits = opened.splits(None if corpus is None else corpus_config(corpus))
    if split not in splits:
        raise UsageError(f"corpus {text.name} has no split {split!r}; it has: {', '.join(splits)}.")
    for path in (per_token, record):
        if path is not None:
            make_folder(path.parent)
    predictor = NeuralPredictor(model, opened.tokenizer.start_id)
    provenance = {
        "corpus": text.name,
        "tokenizer": opened.tokenizer.fingerprint(),
        "run": str(run),
        "parameters": model.num_params(),
        "step": opened.record.get("best_step"),
    }
    with progress_bar(f"{text.name} {split}", not json) as advance:
        result = evaluate_static(predictor, splits[split], config, advance, provenance, per_token)
    if record is not None:
        result.save(record)
    if json:
        emit(result.to_json())
    else:
        table(["", f"{text.name} {split}"], result.rows())
