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
        str | None, typer.Option(help="Format: arpa, huggingface, onnx or web; absent: by the file's ending.")
    ] = None,
    remote_code: Annotated[
        bool, typer.Option("--remote-code", help="huggingface: add the file by which transformers finds the classes.")
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help="onnx, web: weights as 8-bit integers.")] = False,
    batch: Annotated[
        str | None, typer.Option(help="onnx: rows of a call, dynamic (any number) or N.", show_default="dynamic")
    ] = None,
    logits: Annotated[bool, typer.Option("--logits", help="onnx: logits as the first output.")] = False,
    log_prob: Annotated[
        bool, typer.Option("--log-prob", help="onnx: log-probabilities as the first output; so it is anyway.")
    ] = False,
    verify: Annotated[
        int | None,
        typer.Option(
            min=0, help="onnx, web: tokens of text to compare with the model first; 0: none.", show_default="200"
        ),
    ] = None,
    runtime: Annotated[
        Path | None, typer.Option(help="web: the folder node_modules/onnxruntime-web/dist of your npm install.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a model in a format that other programs read.

    arpa, for names that end in .arpa or .arpa.gz: count models, in the format of SRILM and KenLM.

    huggingface: neural language models, as a folder with safetensors, tokenizer, generation config and model card.

    onnx, for names that end in .onnx: one step of a neural model, token and state in, log-probabilities and state out.
    Nothing is written where the exported step is not the model, on text of its own.

    web: a folder with a page that runs the model in the browser, by your own onnxruntime-web.

    Example: unrolled export runs/kn5-ptb kn5.arpa.gz

    Example: unrolled export runs/x exported --to huggingface

    Example: unrolled export runs/ptb step.onnx --int8

    Example: unrolled export runs/ptb page --to web --runtime node_modules/onnxruntime-web/dist
    """
    from unrolled.runs import Run
    from unrolled.serve.export import export_run

    options = {
        "remote_code": remote_code,
        "int8": int8,
        "batch": batch,
        "logits": logits,
        "log_prob": log_prob,
        "verify": verify,
        "runtime": runtime,
    }
    done = export_run(Run(run, "cpu"), out, to, options)
    if json:
        emit(done.record)
    else:
        write(done.sentence)
