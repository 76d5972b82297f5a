"""``unrolled load-test``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unrolled.cli.common import JsonOption, app, emit, write


@app.command("load-test")
def load_test(
    address: Annotated[str, typer.Argument(help="Of a server, such as http://127.0.0.1:8000.")],
    streams: Annotated[int, typer.Option(help="Texts written at once.")] = 128,
    seconds: Annotated[float, typer.Option(help="How long it is measured, once all streams are open.")] = 30.0,
    tokens: Annotated[int, typer.Option(help="Tokens of each text.")] = 200,
    part: Annotated[int | None, typer.Option(help="Tokens of each request; absent: the whole text is one.")] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of a random prompt before each text.")] = 0,
    drop: Annotated[float, typer.Option(help="Share of requests that hang up in the middle.")] = 0.0,
    check: Annotated[int, typer.Option(help="Texts that are written again undisturbed, and compared.")] = 0,
    open_per_second: Annotated[float, typer.Option(help="New streams a second at the beginning.")] = 100.0,
    patience: Annotated[float, typer.Option(help="Seconds that the server may be away.")] = 60.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the texts.")] = 0,
    model: Annotated[str | None, typer.Option(help="Name or id; absent: the first that is served.")] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="A file with the key, in its first line.")] = None,
    pid: Annotated[int | None, typer.Option(help="Process of the server here: its CPU seconds and memory too.")] = None,
    json: JsonOption = False,
) -> None:
    """Load a server with many streams, and measure rates and delays as a client sees them.

    Texts of several parts go on from the states that the client was given, also when a server was restarted in between;
    --check compares them with the same texts written in one piece.

    Example: unrolled load-test http://127.0.0.1:8000 --streams 500 --prompt-tokens 512

    Example: unrolled load-test http://127.0.0.1:8000 --streams 300 --seconds 1200 --part 50 --drop 0.05 --check 100
    """
    from unrolled.core.errors import UnrolledError, UsageError
    from unrolled.core.files import read_bounded
    from unrolled.serve.load import LoadConfig, run_load

    config = LoadConfig.parse({
        "streams": streams, "seconds": seconds, "tokens": tokens, "part": part or tokens, "drop": drop, "check": check,
        "prompt_tokens": prompt_tokens, "open_per_second": open_per_second, "patience": patience, "seed": seed,
    })  # fmt: skip
    key = None
    if api_key_file is not None:
        lines = read_bounded(api_key_file, 64 << 10).decode("utf-8", errors="replace").split()
        if not lines:
            raise UsageError(f"{api_key_file} is empty; put the key into its first line.")
        key = lines[0]
    found = run_load(address, config, model, key, pid)
    if json:
        emit(found)
    else:
        _show(found)
    if found["compared"]["different"]:
        raise UnrolledError(f"{found['compared']['different']} texts are not as they are alone; report this.")


def _show(found: dict[str, Any]) -> None:
    settings, spread = found["settings"], found["events_per_second_of_a_stream"]
    rate = found["tokens_per_second"]
    written = "the server was restarted" if rate is None else f"{rate:,.0f} tokens/s"
    write(
        f"{settings['streams']} streams for {found['seconds']:.0f} s: {written}, "
        f"{found['events_per_second']:,.0f} events/s"
    )
    write(f"a stream: {spread['median']:.1f} events/s (least {spread['least']:.1f})")
    for name, title in (("first_ms", "to the first token"), ("between_ms", "between events")):
        values = found[name]
        if values is not None:
            write(f"{title}: " + ", ".join(f"{key} {value:.0f} ms" for key, value in values.items()))
    answers = ", ".join(f"{count:,} x {code}" for code, count in sorted(found["answers"].items()))
    write(
        f"answers: {answers or 'none'}; {found['texts']:,} texts, {found['hung_up']:,} hung up, "
        f"{found['resumed']:,} resumed"
    )
    server = found["server_cpu_seconds"]
    told = "" if server is None else f", of the server {server:.1f}"
    write(f"CPU seconds of this client {found['client_cpu_seconds']:.1f}{told}")
    before, after = found["server_memory_mb"]
    if before is not None and after is not None:
        write(f"memory of the server: {before:.0f} MB at the beginning, {after:.0f} MB at the end")
    if settings["check"]:
        write(f"{found['compared']['texts']} texts written again: {found['compared']['different']} different")
