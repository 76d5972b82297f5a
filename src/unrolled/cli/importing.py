"""``unrolled import``."""

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.common import JsonOption, app, emit, write


@app.command(name="import")
def import_model(
    source: Annotated[str, typer.Argument(help="A folder that transformers reads, or OWNER/NAME of the hub.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run directory to write; it must not exist.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a name of the hub.")] = None,
    json: JsonOption = False,
) -> None:
    """Make a run directory of a model of transformers, which every other verb takes.

    Our own exports, and models of transformers whose cells are here: mamba, mamba2, falcon_mamba, rwkv, xlstm,
    recurrent_gemma. Weights are read from safetensors alone, since a pickle can run code.

    Example: unrolled import exported --out runs/again
    """
    from unrolled.serve.hf.importing import import_run

    done = import_run(source, out, revision)
    if json:
        emit(done)
    else:
        write(f"{done['model_type']} of {done['parameters']:,} parameters, {done['vocabulary']:,} ids; run {out}")
