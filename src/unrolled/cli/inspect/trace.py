"""``unrolled inspect trace``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unrolled.cli.common import DeviceOption, JsonOption, ThreadsOption, progress_bar, table, use_threads, write
from unrolled.cli.inspect.common import CorpusOption, RunArgument, SplitOption, open_runs, present, provenance, verbs


@verbs.command()
def trace(
    run: RunArgument,
    text: Annotated[
        str | None,
        typer.Argument(help="A text (compressed too), - for standard input; absent: the corpus.", show_default=False),
    ] = None,
    corpus: CorpusOption = None,
    split: SplitOption = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many tokens.")] = None,
    layer: Annotated[list[int] | None, typer.Option(min=0, help="A layer, from 0; repeatable; absent: all.")] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="An internal, such as c or f; repeatable; absent: all.")
    ] = None,
    unit: Annotated[list[int] | None, typer.Option(min=0, help="A unit, from 0; repeatable; absent: all.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Write here, .npz or .safetensors, and FILE.json; absent: tell what there is."
        ),
    ] = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Save a model's internals (states, gates, intermediates, pre-activations) at every token of a text.

    Row t of every array is after token t was read; nats[t] is the loss of that token given those before it. FILE.json
    holds the tokens' text. Without --out the internals are listed, and no text is read.

    Example: unrolled inspect trace runs/x text.txt --layer 0 --name c --name f --out trace.npz

    Example: unrolled inspect trace runs/x
    """
    from unrolled.analyse import (
        Selection,
        collect_trace,
        open_reader,
        passage_of_run,
        passage_text,
        save_trace,
        sites,
    )
    from unrolled.cells.taps import tap_name
    from unrolled.core.errors import UsageError
    from unrolled.core.files import ready_output, write_json

    use_threads(threads)
    (opened,) = open_runs([run], device, None)
    selection = Selection(layers=layer and tuple(layer), names=name and tuple(name), units=unit and tuple(unit))  # type: ignore[arg-type]
    predictor = open_reader(opened)
    chosen = selection.check(sites(predictor))
    listed = {key: {"role": tap_name(key.split(".", 1)[1]).role, "units": width} for key, width in chosen.items()}
    record = {"kind": "trace", "selection": selection.model_dump(mode="json"), "internals": listed}
    if out is None and (text, corpus, limit) != (None, None, None):
        raise UsageError("the trace of a text goes into a file; name one that ends in .npz or .safetensors with --out.")
    if out is not None:
        if out.suffix not in (".npz", ".safetensors"):
            raise UsageError(f"{out} ends neither in .npz nor in .safetensors; choose one of the two.")
        ready_output(out)
        passage = passage_of_run(opened, text, corpus, split, limit)
        with progress_bar(f"reading {run.name}", not json) as advance:
            found = collect_trace(predictor, passage, selection, advance)
        save_trace(out, found, passage_text(opened.tokenizer, passage))
        record |= {**provenance(opened, passage.origin), "file": str(out)}
        names = [opened.tokenizer.token(token) for token in passage.ids.tolist()]
        write_json(f"{out}.json", {**record, "tokens_text": names})
    present(record, json, lambda: _print(record))


def _print(record: dict[str, Any]) -> None:
    listed = record["internals"]
    table(["internal", "role", "units"], [[key, one["role"], f"{one['units']:,}"] for key, one in listed.items()])
    if "file" in record:
        write(f"{record['tokens']:,} tokens written to {record['file']}")
