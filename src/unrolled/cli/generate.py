"""``unrolled generate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unrolled.cli.choosing import counts, sampler_of
from unrolled.cli.common import (
    BackendOption,
    DeviceOption,
    JsonOption,
    PrecisionOption,
    PredictOption,
    QuantizeOption,
    RecycleOption,
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
    context: typer.Context,
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
        list[str] | None,
        typer.Option(
            help="TEXT=X: adds X to the log-probability of a token; repeatable. Pen strokes: a number; above 0 neater."
        ),
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
        float | None,
        typer.Option(help="The sum is divided by the tokens to this power: 1 for beams, 0 (not) for --search."),
    ] = None,
    groups: Annotated[int, typer.Option(min=1, help="Groups of beams that are kept different.")] = 1,
    diversity: Annotated[float, typer.Option(min=0, help="How different: taken off what other groups chose.")] = 0.0,
    stop_early: Annotated[
        str, typer.Option(help="bound: when none can come among the best; first: when enough are finished.")
    ] = "bound",
    given: Annotated[
        str | None,
        typer.Option(help="With --beams: what the text must come to: nonempty, nonempty-N, no-repeat, no-repeat-N."),
    ] = None,
    search: Annotated[
        int | None,
        typer.Option(min=0, help="Best-first search for the text of highest score, by so many distributions more."),
    ] = None,
    draft: Annotated[
        Path | None, typer.Option(help="A run of the same vocabulary that drafts tokens for this one to judge.")
    ] = None,
    draft_tokens: Annotated[int, typer.Option(min=1, help="Tokens drafted at a time.")] = 4,
    candidates: Annotated[
        str, typer.Option(help="Tokens drafted in each place, from the first: 3, or 3,2; further places have one.")
    ] = "1",
    guidance: Annotated[
        float | None, typer.Option(help="Goes further by so much from what would come without the prompt.")
    ] = None,
    negative: Annotated[str, typer.Option(help="With --guidance: read in place of the prompt.")] = "",
    amateur: Annotated[
        Path | None, typer.Option(help="A weaker run of the same vocabulary, whose prediction is taken off.")
    ] = None,
    by_symbol: Annotated[
        bool, typer.Option("--by-symbol", help="Byte by byte, exactly, whatever tokens the prompt ends within.")
    ] = False,
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
    recycle: RecycleOption = None,
    predict: PredictOption = None,
    settings: SettingsOption = None,
    device: DeviceOption = "auto",
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    svg: Annotated[Path | None, typer.Option(help="Pen strokes: write a picture of them here.")] = None,
    png: Annotated[
        Path | None,
        typer.Option(
            help="Pictures: go on after the first ones of held-out sequences, and write a strip of given, true and own "
            "ones here."
        ),
    ] = None,
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

    Example: unrolled generate runs/x --constrain json=@schema.json --samples 5

    Example: unrolled generate runs/x --prompt "The " --tokens 40 --search 2000

    Example: unrolled generate runs/big --draft runs/small --candidates 3

    Example: unrolled generate runs/x --prompt "The " --guidance 0.5

    Example: unrolled generate runs/bpe --prompt "The strange" --by-symbol

    Example: unrolled generate runs/x --clamp 0.c.17=2 --samples 5

    Example: unrolled generate runs/x --state chapter1.state --state-out chapter2.state

    Example: unrolled generate runs/pen --prompt dace --bias 1 --svg out.svg

    Example: unrolled generate runs/squares --png strip.png --samples 3
    """
    from unrolled.cli.beams import print_beams, print_drafted, print_search
    from unrolled.cli.frames import OF_FRAMES, print_frames
    from unrolled.cli.tasks import check_alone
    from unrolled.cli.texts import print_generation
    from unrolled.cli.writing import Writing, symbols_of
    from unrolled.core.errors import UsageError
    from unrolled.core.files import ready_output
    from unrolled.core.registry import unknown_name
    from unrolled.data.reading import read_plain
    from unrolled.generate import BeamConfig, ContrastConfig, SpeculativeConfig, draws
    from unrolled.predict import ADAPTERS
    from unrolled.runs import Run

    if prompt is not None and prompt_file is not None:
        raise UsageError("give either --prompt or --prompt-file, not both.")
    if prompt == "-" or prompt_file is not None:
        text = read_plain("-" if prompt_file is None else prompt_file)
    else:
        text = given_text(prompt or "", "the prompt")
    if reference is not None and not json:
        raise UsageError("--reference is for candidates in JSON; say --json too.")
    opened = Run(run, device, backend, precision)
    if opened.task_class.frames:
        check_alone(
            context, *OF_FRAMES, why=f"{run} is {opened.task_class.noun}, whose frames are drawn from the start"
        )
        if len(bias or ()) > 1:
            raise UsageError("of frames there is one --bias; leave out the others.")
        print_frames(opened, prompt, tokens, samples, seed, (bias or ["0"])[0], svg, png, json)
        return
    if svg is not None or png is not None:
        raise UsageError(f"{run} does not write pen strokes or pictures; leave out --svg and --png.")
    tables = {"sampler": {}, "contrast": {}}
    options, others = at_test_time(predict, settings, tables, quantize=quantize, recycle=recycle, clamp=clamp or None)
    drawn = symbols_of(opened) if by_symbol else opened.tokenizer
    sampler = sampler_of(drawn, context.params, bias or (), stop_token or (), constrain, others.pop("sampler"))
    contrast = ContrastConfig.parse(others.pop("contrast"))
    if others:
        raise unknown_name("config key", next(iter(others)), [*ADAPTERS, "predict", *tables])
    writing = Writing(
        opened, text, tokens, sampler, [with_escapes(given_text(one, "a stop text")) for one in stop or ()], json,
        options, state, guidance, given_text(negative, "the negative prompt"),
        None if amateur is None else Run(amateur, device, backend, precision), contrast,
        None if reference is None else given_text(reference, "the reference"), by_symbol,
    )  # fmt: skip
    if (state or state_out) and (guidance is not None or amateur is not None):
        raise UsageError("a state is that of one model and one text; leave it out, or --guidance and --amateur.")
    ways = {"--beams": beams, "--search": search, "--draft": draft}
    way = [name for name, value in ways.items() if value is not None]
    if len(way) > 1:
        raise UsageError(f"{way[0]} and {way[1]} are not combined; leave out one of them.")
    if by_symbol and (way or state or state_out or guidance is not None or amateur is not None):
        raise UsageError(
            "--by-symbol draws bytes from one model; leave it out, or --beams, --search, --draft, --guidance, "
            "--amateur, --state and --state-out."
        )
    if way and (log_probs or state_out):
        raise UsageError(f"with {way[0]} there is neither --log-probs nor --state-out; leave them out.")
    if way in (["--beams"], ["--search"]) and (draws(sampler) or samples > 1):
        raise UsageError(f"with {way[0]} texts are chosen, not drawn; leave out filters, --temperature and --samples.")
    if beams is None and (nbest != 1 or groups != 1 or diversity or stop_early != "bound" or given):
        raise UsageError("--nbest, --groups, --diversity, --stop-early and --given need --beams; say --beams too.")
    if beams is None and search is None and length_penalty is not None:
        raise UsageError("--length-penalty needs --beams or --search; say one of them too.")
    if draft is None and (draft_tokens != 4 or candidates != "1"):
        raise UsageError("--draft-tokens and --candidates need --draft; say --draft too.")
    if beams is not None:
        print_beams(writing, given, BeamConfig.parse({
            "beams": beams, "nbest": nbest, "length": 1.0 if length_penalty is None else length_penalty,
            "groups": groups, "diversity": diversity, "stop_early": stop_early,
        }))  # fmt: skip
    elif search is not None:
        print_search(writing, search, length_penalty or 0.0)
    elif draft is not None:
        if state is not None:
            raise UsageError("the state of a text is not the draft's; leave out --state, or --draft.")
        config = SpeculativeConfig.parse({"tokens": draft_tokens, "candidates": counts(candidates, "--candidates")})
        print_drafted(writing, Run(draft, device, backend), config, samples)
    else:
        if state_out is not None:
            if samples > 1:
                raise UsageError("--state-out is the state after one text; leave out --samples.")
            ready_output(state_out, *([] if state is None else [state]))
        print_generation(writing, samples, state_out, log_probs)
