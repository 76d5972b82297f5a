"""``unrolled generate``."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unrolled.cli.common import (
    BackendOption,
    DeviceOption,
    JsonOption,
    PrecisionOption,
    PredictOption,
    QuantizeOption,
    SettingsOption,
    app,
    at_test_time,
    emit,
    given_text,
    with_escapes,
    write,
)

if TYPE_CHECKING:
    from unrolled.generate import SamplerConfig
    from unrolled.runs import Run


@app.command()
def generate(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="Text to continue; - reads standard input.")
    ] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="A file with the text to continue.")] = None,
    tokens: Annotated[int, typer.Option("--tokens", "-n", min=1, help="Tokens to generate.")] = 300,
    temperature: Annotated[
        float, typer.Option(min=0, help="Below 1 sharper, above 1 flatter, 0 the likeliest token.")
    ] = 1.0,
    top_k: Annotated[int | None, typer.Option(min=1, help="Only the k likeliest tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="The fewest tokens whose probability sums to p.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="Tokens at least p times as likely as the likeliest.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal text.")] = 0,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="End before this text; \\n, \\t and \\\\ mean a line end, a tab and \\; repeatable."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Continuations, made in one batch.")] = 1,
    clamp: Annotated[
        list[str] | None,
        typer.Option(
            help="LAYER.NAME.UNIT=VALUE, such as 0.c.17=1.5 (from 0): hold a unit of the carried state at a value, in "
            "the prompt too; may be given several times."
        ),
    ] = None,
    quantize: QuantizeOption = None,
    predict: PredictOption = None,
    settings: SettingsOption = None,
    device: DeviceOption = "auto",
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    json: JsonOption = False,
) -> None:
    """Continue a text.

    The text appears as it is generated; memory does not grow with its length. On a CPU the weights are prepared for
    single steps; --quantize keeps fewer bits of them, which is faster and changes the probabilities a little.

    Example: unrolled generate runs/x --prompt "The " --temperature 0.8 --tokens 500

    Example: unrolled generate runs/x --stop "\\n\\n"

    Example: unrolled generate runs/x --clamp 0.c.17=2 --samples 5
    """
    from unrolled.core.errors import UsageError
    from unrolled.data.reading import read_plain
    from unrolled.generate import SamplerConfig
    from unrolled.runs import Run

    if prompt is not None and prompt_file is not None:
        raise UsageError("give either --prompt or --prompt-file, not both.")
    if prompt == "-" or prompt_file is not None:
        text = read_plain("-" if prompt_file is None else prompt_file)
    else:
        text = given_text(prompt or "", "the prompt")
    sampler = SamplerConfig.parse(
        {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "seed": seed}
    )
    opened = Run(run, device, backend, precision)
    stops = [with_escapes(given_text(one, "a stop text")) for one in stop or ()]
    options, _ = at_test_time(predict, settings, quantize=quantize, clamp=clamp or None)
    print_generation(opened, text, tokens, sampler, stops, samples, json, options)


def print_generation(
    run: "Run",
    text: str,
    tokens: int,
    sampler: "SamplerConfig | None" = None,
    stop: Sequence[str] = (),
    samples: int = 1,
    json: bool = False,
    predict: Mapping[str, Any] | None = None,
) -> None:
    """Generate over a run and print: one sample as it comes, several when they are whole."""
    from unrolled.evaluate import open_predictor
    from unrolled.generate import generate as whole
    from unrolled.generate import stream
    from unrolled.predict import PredictorConfig

    with open_predictor(run, PredictorConfig.parse(predict or {}), stepwise=True) as predictor:
        arguments = (predictor, run.tokenizer, (text,), tokens, sampler, tuple(stop), samples)
        if json:
            emit([done._asdict() for done in whole(*arguments)])
        elif samples > 1:
            for i, done in enumerate(whole(*arguments), 1):
                write(f"--- {i}\n{text}{done.text}")
        else:
            pieces = stream(*arguments)  # refuses a prompt that it cannot read, before anything is printed
            write(text, "")
            for piece in pieces:
                write(piece.text, "")
                sys.stdout.flush()
            write("")
