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
    StateOption,
    StateOutOption,
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
    state: StateOption = None,
    state_out: StateOutOption = None,
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

    Example: unrolled generate runs/x --state chapter1.state --state-out chapter2.state
    """
    from unrolled.core.errors import UsageError
    from unrolled.core.files import ready_output
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
    if state_out is not None:
        if samples > 1:
            raise UsageError("--state-out is the state after one text; leave out --samples.")
        ready_output(state_out, *([] if state is None else [state]))
    print_generation(opened, text, tokens, sampler, stops, samples, json, options, state, state_out)


def print_generation(
    run: "Run",
    text: str,
    tokens: int,
    sampler: "SamplerConfig | None" = None,
    stop: Sequence[str] = (),
    samples: int = 1,
    json: bool = False,
    predict: Mapping[str, Any] | None = None,
    state: Path | None = None,
    state_out: Path | None = None,
) -> None:
    """Generate over a run and print: one sample as it comes, several when they are whole.

    Args:
        state: file of the state to go on from. state_out: file for the state after the text, of one sample.
    """
    from unrolled.evaluate import open_predictor, state_form
    from unrolled.generate import generate as whole
    from unrolled.generate import stream
    from unrolled.predict import KeptState, PredictorConfig
    from unrolled.predict.state_files import read_state, write_state

    with open_predictor(run, PredictorConfig.parse(predict or {}), stepwise=True) as predictor:
        form = None if state is None and state_out is None else state_form(run, predictor)
        begun = None if form is None else form.begin() if state is None else read_state(state, form)
        ends: dict[tuple[int, int], KeptState] | None = None if state_out is None else {}
        arguments = (predictor, run.tokenizer, (text,), tokens, sampler, tuple(stop), samples, begun, ends)
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
        if ends is not None and state_out is not None and form is not None:
            write_state(state_out, ends[0, 0], form)
