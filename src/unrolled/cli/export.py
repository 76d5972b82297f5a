"""``unrolled export``."""

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.common import JsonOption, app, emit, write


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    out: Annotated[Path, typer.Argument(help="What to write: a file, whose ending may say the format, or a folder.")],
    to: Annotated[
        str | None,
        typer.Option(
            help="Format: arpa (count models), huggingface (a folder for transformers); absent: by the file's ending."
        ),
    ] = None,
    remote_code: Annotated[
        bool, typer.Option("--remote-code", help="huggingface: add the file by which transformers finds the classes.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Write a model in a format that other programs read.

    arpa, for names that end in .arpa or .arpa.gz: count models, in the format of SRILM and KenLM.

    huggingface: neural language models, as a folder with safetensors, tokenizer, generation config and model card.

    Example: unrolled export runs/kn5-ptb kn5.arpa.gz

    Example: unrolled export runs/x exported --to huggingface
    """
    from unrolled.runs import Run
    from unrolled.serve.export import export_run

    done = export_run(Run(run, "cpu"), out, to, {"remote_code": remote_code})
    if json:
        emit(done.record)
    else:
        write(done.sentence)
