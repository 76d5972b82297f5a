"""``unrolled inspect page``."""

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.common import DeviceOption, JsonOption, ThreadsOption, emit, progress_bar, use_threads, write
from unrolled.cli.inspect.common import open_runs, verbs

__all__ = ["page"]


@verbs.command()
def page(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN [RUN2]", help="One run directory, or two to compare.")],
    text: Annotated[Path, typer.Argument(help="A text (compressed too).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("page.html"),
    alternatives: Annotated[int, typer.Option(min=1, max=32, help="Likeliest tokens kept of every place.")] = 4,
    internals: Annotated[
        list[str] | None,
        typer.Option(
            help="An internal to keep, as LAYER.NAME, such as 0.c; repeatable; absent: all but pre-activations."
        ),
    ] = None,
    units: Annotated[
        int | None, typer.Option(min=0, help="Units kept of a layer, by variance; absent: as many as fit.")
    ] = None,
    unit: Annotated[
        list[str] | None, typer.Option(help="A unit kept in any case, as LAYER.UNIT, such as 0.17; repeatable.")
    ] = None,
    megabytes: Annotated[float, typer.Option(help="Greatest size of the page.")] = 10.0,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Make one HTML page of a text as one or two models read it: losses, alternatives, and what units do.

    The page needs no network and no other file. Losses are in bits; the quantisation is in docs/protocols.md.

    Example: unrolled inspect page runs/lstm runs/mlstm text.txt --out page.html
    """
    from unrolled.analyse import PageConfig, page_of_runs, write_page
    from unrolled.core.errors import UsageError
    from unrolled.core.files import ready_output

    if len(runs) > 2:
        raise UsageError(f"a page shows one or two runs, not {len(runs)}; give fewer.")
    config = PageConfig.parse({
        "alternatives": alternatives, "internals": internals, "units": units, "chosen": unit or (),
        "megabytes": megabytes,
    })  # fmt: skip
    if not text.is_file():
        raise UsageError(f"there is no text at {text}; give the file as the last argument.")
    ready_output(out)
    use_threads(threads)
    opened = open_runs(runs, device, None)
    with progress_bar("reading", not json) as advance:
        content, models, title = page_of_runs(opened, text, config, advance)
    size = write_page(out, content, [model.value for model in models], title)
    if json:
        shown = [
            {"name": model.value["name"], "tokens": model.tokens, "units": model.kept, "units_in_all": model.total}
            for model in models
        ]
        emit({"page": str(out), "bytes": size, "runs": shown, "left_out": [m.note for m in models if m.note]})
        return
    for model in models:
        write(f"{model.value['name']}: {model.tokens:,} tokens, {model.kept:,} of {model.total:,} units")
        if model.note:
            typer.echo(model.note, err=True)
    write(f"{out}, {size / 1e6:.1f} MB")
