"""``unrolled inspect units``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unrolled.cli.common import DeviceOption, JsonOption, ThreadsOption, progress_bar, table, use_threads, write
from unrolled.cli.inspect.common import (
    CorpusOption,
    FolderOption,
    LimitOption,
    RunArgument,
    SplitOption,
    TextOption,
    open_runs,
    present,
    provenance,
    verbs,
)


@verbs.command()
def units(
    run: RunArgument,
    wanted: Annotated[
        list[str] | None,
        typer.Option(
            "--property",
            help="quote, depth, round, square, curly, line_position, word_end or indent; "
            "repeatable; absent: each that varies.",
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--table", help="Tab-separated table, a row a character (or token) of the text.")
    ] = None,
    column: Annotated[list[str] | None, typer.Option(help="A column of numbers in the table; repeatable.")] = None,
    by: Annotated[str, typer.Option(help="correlation or information: what units are ranked by.")] = "correlation",
    name: Annotated[
        list[str] | None, typer.Option(help="An internal; repeatable; absent: c, or h where there is none.")
    ] = None,
    layer: Annotated[list[int] | None, typer.Option(min=0, help="A layer, from 0; repeatable; absent: all.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Units to tell of, for each property.")] = 5,
    text: TextOption = None,
    corpus: CorpusOption = None,
    split: SplitOption = "test",
    limit: LimitOption = 20_000,
    folder: FolderOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Rank units by how well they follow a property of the text: quotes, brackets, lines, words, or your own column.

    A property is that of the character just read; a token has that of its last character.

    Example: unrolled inspect units runs/x --text book.txt --property quote --out units

    Example: unrolled inspect units runs/x --text book.txt --table marks.tsv --column rhyme
    """  # fmt: skip
    from unrolled.analyse import (
        PROPERTIES,
        Selection,
        bin_units,
        collect_trace,
        open_reader,
        passage_of_run,
        passage_text,
        property_of,
        rank_units,
        read_property,
        sites,
        units_record,
        write_units,
    )
    from unrolled.core.errors import UsageError
    from unrolled.core.registry import unknown_name

    if by not in ("correlation", "information"):
        raise unknown_name("measure", by, ["correlation", "information"])
    if (file is None) != (not column):
        raise UsageError("a table and its column go together: give both --table and --column.")
    for one in wanted or ():
        if one not in PROPERTIES:
            raise unknown_name("property", one, PROPERTIES)
    use_threads(threads)
    (opened,) = open_runs([run], device, folder)
    predictor = open_reader(opened)
    there = {key.split(".", 1)[1] for key in sites(predictor)}
    selection = Selection(layers=layer and tuple(layer), names=tuple(name or ["c" if "c" in there else "h"]))  # type: ignore[arg-type]
    passage = passage_of_run(opened, text, corpus, split, limit)
    spelled = passage_text(opened.tokenizer, passage)
    values = {one: property_of(one, spelled) for one in (wanted or (() if file else PROPERTIES))}
    for one in column or ():
        assert file is not None
        values[one] = read_property(file, one, spelled)
    still = [] if wanted or file else [one for one, of in values.items() if of.min() == of.max()]
    values = {one: of for one, of in values.items() if one not in still}
    if not values:
        raise UsageError("no built-in property varies in this text; read another text or more of it.")
    with progress_bar(f"reading {run.name}", not json) as advance:
        trace = collect_trace(predictor, passage, selection, advance)
    classes = bin_units(trace.values)
    found = [rank_units(one, of, trace.values, classes, by) for one, of in values.items()]  # type: ignore[arg-type]
    config = {"by": by, "selection": selection.model_dump(mode="json"), "constant": still}
    record = units_record(found, top, provenance(opened, passage.origin), config)
    note = None if folder is None else write_units(folder, found, record, values, trace.values)
    present(record, json, lambda: _print(record), note)


def _print(record: dict[str, Any]) -> None:
    rows = [
        [kind, one["internal"], str(one["unit"]), f"{one['correlation']:+.4f}", f"{one['information_bits']:.4f}",
         f"{of['entropy_bits']:.4f}"]
        for kind, of in record["properties"].items()
        for one in of["units"]
    ]  # fmt: skip
    table(["property", "internal", "unit", "correlation", "information, bits", "of at most"], rows)
    if still := record["config"]["constant"]:
        write(f"the same at every token, so left out: {', '.join(still)}")
