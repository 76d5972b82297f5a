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
    emit_texts,
    given_text,
    with_escapes,
    write,
)

if TYPE_CHECKING:
    from unrolled.generate import Generation, Piece, SamplerConfig
    from unrolled.runs import Run
    from unrolled.tokenizer import Tokenizer


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
    typical: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="The fewest tokens with probability p in all, nearest to the expected surprisal."
        ),
    ] = None,
    epsilon: Annotated[float | None, typer.Option(min=0, max=1, help="Tokens of at least this probability.")] = None,
    eta: Annotated[float | None, typer.Option(min=0, max=1, help="As --epsilon, lower where many are likely.")] = None,
    repetition: Annotated[
        float | None, typer.Option(min=1, help="Multiplies the log-probability of tokens that were there already.")
    ] = None,
    presence: Annotated[float, typer.Option(help="Taken off that of tokens which were generated already.")] = 0.0,
    frequency: Annotated[float, typer.Option(help="Taken off once for each time that a token was generated.")] = 0.0,
    no_repeat: Annotated[int | None, typer.Option(min=1, help="No sequence of so many tokens twice.")] = None,
    no_repeat_prompt: Annotated[bool, typer.Option("--no-repeat-prompt", help="The prompt's count there too.")] = False,
    bias: Annotated[
        list[str] | None, typer.Option(help="TEXT=X: adds X to the log-probability of a token; repeatable.")
    ] = None,
    min_tokens: Annotated[int, typer.Option(min=0, help="No end symbol before so many tokens.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal text.")] = 0,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="End before this text; \\n, \\t and \\\\ mean a line end, a tab and \\; repeatable."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Continuations, made in one batch.")] = 1,
    log_probs: Annotated[
        int,
        typer.Option(
            "--log-probs",
            min=0,
            help="A row a token in place of text: its nats by the model and after "
            "filters, and the so many likeliest of both.",
        ),
    ] = 0,
    beams: Annotated[
        int | None, typer.Option(min=1, help="Beam search: the texts of highest score in place of draws.")
    ] = None,
    nbest: Annotated[int, typer.Option(min=1, help="Texts that beam search gives, of each group.")] = 1,
    length_penalty: Annotated[
        float, typer.Option(help="A beam's sum is divided by its tokens to this power; 0: not.")
    ] = 1.0,
    groups: Annotated[int, typer.Option(min=1, help="Groups of beams that are kept different.")] = 1,
    diversity: Annotated[float, typer.Option(min=0, help="How different: taken off what other groups chose.")] = 0.0,
    stop_early: Annotated[
        str, typer.Option(help="bound: when none can come among the best; first: when enough are finished.")
    ] = "bound",
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
    reference: Annotated[
        str | None,
        typer.Option(
            help="With --json: one line of JSON that holds the texts as candidates beside this one, for the objective "
            "calibrate."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Continue a text.

    The text appears as it is generated; memory does not grow with its length. On a CPU the weights are prepared for
    single steps; --quantize keeps fewer bits of them, which is faster and changes the probabilities a little.

    Example: unrolled generate runs/x --prompt "The " --temperature 0.8 --tokens 500

    Example: unrolled generate runs/x --stop "\\n\\n"

    Example: unrolled generate runs/x --prompt "The " --beams 8 --nbest 5 --tokens 40

    Example: unrolled generate runs/x --clamp 0.c.17=2 --samples 5

    Example: unrolled generate runs/x --state chapter1.state --state-out chapter2.state
    """
    from unrolled.cli.beams import print_beams
    from unrolled.core.errors import UsageError
    from unrolled.core.files import ready_output
    from unrolled.data.reading import read_plain
    from unrolled.generate import BeamConfig, SamplerConfig, bias_of
    from unrolled.runs import Run

    if prompt is not None and prompt_file is not None:
        raise UsageError("give either --prompt or --prompt-file, not both.")
    if prompt == "-" or prompt_file is not None:
        text = read_plain("-" if prompt_file is None else prompt_file)
    else:
        text = given_text(prompt or "", "the prompt")
    if reference is not None and not json:
        raise UsageError("--reference is for candidates in JSON; say --json too.")
    wanted = None if reference is None else given_text(reference, "the reference")
    opened = Run(run, device, backend, precision)
    sampler = SamplerConfig.parse({
        "bias": bias_of(dict(map(_bias, bias or ())), opened.tokenizer) if bias else {},
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "typical": typical,
        "epsilon": epsilon, "eta": eta, "repetition": repetition, "presence": presence, "frequency": frequency,
        "no_repeat": no_repeat, "no_repeat_prompt": no_repeat_prompt, "min_tokens": min_tokens, "seed": seed,
    })  # fmt: skip
    stops = [with_escapes(given_text(one, "a stop text")) for one in stop or ()]
    options, _ = at_test_time(predict, settings, quantize=quantize, clamp=clamp or None)
    if beams is not None:
        drawn = (temperature != 1, top_k, top_p, min_p, typical, epsilon, eta, samples > 1, log_probs, state_out)
        if any(drawn):
            raise UsageError(
                "beams are chosen, not drawn; leave out filters, --temperature, --samples, --log-probs and --state-out."
            )
        search = BeamConfig.parse({
            "beams": beams, "nbest": nbest, "length": length_penalty, "groups": groups, "diversity": diversity,
            "stop_early": stop_early,
        })  # fmt: skip
        print_beams(opened, text, tokens, search, sampler, stops, json, options, state, wanted)
        return
    if nbest != 1 or groups != 1 or diversity or length_penalty != 1 or stop_early != "bound":
        raise UsageError(
            "--nbest, --groups, --diversity, --length-penalty and --stop-early need --beams; say --beams too."
        )
    if state_out is not None:
        if samples > 1:
            raise UsageError("--state-out is the state after one text; leave out --samples.")
        ready_output(state_out, *([] if state is None else [state]))
    print_generation(opened, text, tokens, sampler, stops, samples, json, options, state, state_out, log_probs, wanted)


def _bias(text: str) -> tuple[str, float]:
    from unrolled.core.errors import UsageError

    name, _, value = text.rpartition("=")
    try:
        if not name:
            raise ValueError("no text")
        return with_escapes(name), float(value)
    except ValueError as error:
        raise UsageError(f"--bias needs the form TEXT=X, such as --bias e=-2 (got {text!r}).") from error


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
    log_probs: int = 0,
    reference: str | None = None,
) -> None:
    """Generate over a run and print: one sample as it comes, several when they are whole.

    Args:
        state: file of the state to go on from. state_out: file for the state after the text, of one sample.
        log_probs: how many of the likeliest tokens are told of each; 0: the text is printed. reference: see
            :func:`emit_texts`.
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
        arguments = (predictor, run.tokenizer, (text,), tokens, sampler, tuple(stop), samples, begun, ends, log_probs)
        if json:
            emit_texts([_as_json(done, run.tokenizer) for done in whole(*arguments)], text, reference)
        elif log_probs:
            write("\t".join(_COLUMNS))
            for piece in stream(*arguments):
                write("\t".join(map(_cell, _row(piece, run.tokenizer).values())))
                sys.stdout.flush()
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


_COLUMNS = ("sample", "token", "log_prob", "log_prob_after", "likeliest", "likeliest_after")


def _row(piece: "Piece", tokenizer: "Tokenizer") -> dict[str, Any]:
    """What is told of a token, by the names of the columns."""
    assert piece.told is not None
    best = ([(tokenizer.token(one), nats) for one, nats in each] for each in (piece.told.before, piece.told.after))
    values = (piece.sample, tokenizer.token(piece.token), piece.log_prob, piece.told.log_prob, *best)
    return dict(zip(_COLUMNS, values, strict=True))


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(f"{name!r}:{nats:.4f}" for name, nats in value)
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _as_json(done: "Generation", tokenizer: "Tokenizer") -> dict[str, Any]:
    from unrolled.generate import repeats

    value = done._asdict()
    pieces = value.pop("pieces")
    value["repeats"] = repeats(done.tokens)
    return {**value, "log_probs": [_row(piece, tokenizer) for piece in pieces]} if pieces else value
