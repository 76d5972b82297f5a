"""``unrolled generate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unrolled.cli.choosing import sampler_of
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
    given_text,
    with_escapes,
)

if TYPE_CHECKING:
    pass


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
    stop_token: Annotated[
        list[str] | None, typer.Option(help="End before this token, a text of one token; repeatable.")
    ] = None,
    constrain: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="What the text may be: regex=[0-9]+, json=@schema.json, grammar=@rules.lark... (@ reads a file).",
        ),
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
    json: JsonOption = False,
) -> None:
    """Continue a text.

    The text appears as it is generated; memory does not grow with its length. On a CPU the weights are prepared for
    single steps; --quantize keeps fewer bits of them, which is faster and changes the probabilities a little.

    Example: unrolled generate runs/x --prompt "The " --temperature 0.8 --tokens 500

    Example: unrolled generate runs/x --stop "\\n\\n"

    Example: unrolled generate runs/x --prompt "The " --beams 8 --nbest 5 --tokens 40

    Example: unrolled generate runs/x --constrain json=@schema.json --samples 5

    Example: unrolled generate runs/x --clamp 0.c.17=2 --samples 5

    Example: unrolled generate runs/x --state chapter1.state --state-out chapter2.state
    """
    from unrolled.cli.beams import print_beams
    from unrolled.cli.texts import print_generation
    from unrolled.core.errors import UsageError
    from unrolled.core.files import ready_output
    from unrolled.core.registry import unknown_name
    from unrolled.data.reading import read_plain
    from unrolled.generate import BeamConfig, draws
    from unrolled.predict import ADAPTERS
    from unrolled.runs import Run

    if prompt is not None and prompt_file is not None:
        raise UsageError("give either --prompt or --prompt-file, not both.")
    if prompt == "-" or prompt_file is not None:
        text = read_plain("-" if prompt_file is None else prompt_file)
    else:
        text = given_text(prompt or "", "the prompt")
    opened = Run(run, device, backend, precision)
    options, others = at_test_time(predict, settings, {"sampler": {}}, quantize=quantize, clamp=clamp or None)
    flags = {
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "typical": typical,
        "epsilon": epsilon, "eta": eta, "repetition": repetition, "presence": presence, "frequency": frequency,
        "no_repeat": no_repeat, "no_repeat_prompt": no_repeat_prompt, "min_tokens": min_tokens, "seed": seed,
    }  # fmt: skip
    sampler = sampler_of(opened.tokenizer, flags, bias or (), stop_token or (), constrain, others.pop("sampler"))
    stops = [with_escapes(given_text(one, "a stop text")) for one in stop or ()]
    if others:
        raise unknown_name("config key", next(iter(others)), [*ADAPTERS, "predict", "sampler"])
    if beams is not None:
        if draws(sampler) or samples > 1 or log_probs or state_out:
            raise UsageError(
                "beams are chosen, not drawn; leave out filters, --temperature, --samples, --log-probs and --state-out."
            )
        search = BeamConfig.parse({
            "beams": beams, "nbest": nbest, "length": length_penalty, "groups": groups, "diversity": diversity,
            "stop_early": stop_early,
        })  # fmt: skip
        print_beams(opened, text, tokens, search, sampler, stops, json, options, state)
        return
    if nbest != 1 or groups != 1 or diversity or length_penalty != 1 or stop_early != "bound":
        raise UsageError(
            "--nbest, --groups, --diversity, --length-penalty and --stop-early need --beams; say --beams too."
        )
    if state_out is not None:
        if samples > 1:
            raise UsageError("--state-out is the state after one text; leave out --samples.")
        ready_output(state_out, *([] if state is None else [state]))
    print_generation(opened, text, tokens, sampler, stops, samples, json, options, state, state_out, log_probs)
