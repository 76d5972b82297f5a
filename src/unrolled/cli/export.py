"""``unrolled export``."""

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.common import JsonOption, app, emit, write


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    out: Annotated[Path, typer.Argument(help="What to write: a file, whose ending may say the format, or a folder.")],
    to: Annotated[str | None, typer.Option(help="Format: arpa (count models); absent: by the file's ending.")] = None,
    json: JsonOption = False,
) -> None:
    """Write a model in a format that other programs read.

    arpa, for names that end in .arpa or .arpa.gz: count models, in the format of SRILM and KenLM.

    Example: unrolled export runs/kn5-ptb kn5.arpa.gz
    """
    from unrolled.runs import Run
    from unrolled.serve.export import export_run

    done = export_run(Run(run, "cpu"), out, to)
    if json:
        emit(done.record)
    else:
        write(done.sentence)
