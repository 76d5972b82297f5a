"""``unrolled serve``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unrolled.cli.common import JsonOption, PredictOption, QuantizeOption, SettingsOption, app, as_json, at_test_time
from unrolled.cli.streams import say

_UNITS = {"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "b": 1}


@app.command()
def serve(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN...", help="Runs, each a model under the folder's name.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="A TOML file with a table [serve]; options here win.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address; others than loopback need --api-key-file.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one. [default: 8000]")] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A further name that requests may come to, as behind a proxy; repeatable.")
    ] = None,
    mixture: Annotated[
        list[str] | None,
        typer.Option(help="NAME=RUN:WEIGHT,RUN:WEIGHT: a mixture of runs that are served, as one more; repeatable."),
    ] = None,
    quantize: QuantizeOption = None,
    predict: PredictOption = None,
    settings: SettingsOption = None,
    threads: Annotated[int | None, typer.Option(help="Engine threads. [default: 2]")] = None,
    streams: Annotated[int | None, typer.Option(help="Texts written at once. [default: 512]")] = None,
    queue: Annotated[int | None, typer.Option(help="Requests that wait beyond. [default: 256]")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens written for one text. [default: 4096]")] = None,
    max_prompt: Annotated[int | None, typer.Option(help="Tokens of a prompt. [default: 65536]")] = None,
    max_body: Annotated[str | None, typer.Option(help="Size of a request's body. [default: 2MB]")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Time for one text. [default: 120]")] = None,
    state_key: Annotated[
        Path | None, typer.Option(help="Keys that sign states, 64 hexadecimal digits a line; the first signs.")
    ] = None,
    client_state: Annotated[
        bool | None, typer.Option("--client-state/--no-client-state", help="Whether states leave the server.")
    ] = None,
    signature: Annotated[
        bool | None, typer.Option("--signature/--no-signature", help="Whether states must be signed; lab alone.")
    ] = None,
    state_bytes: Annotated[str | None, typer.Option(help="Largest state given out. [default: 1MB]")] = None,
    state_max_age: Annotated[float | None, typer.Option(help="Age in seconds at which a state is refused.")] = None,
    state_ttl: Annotated[float | None, typer.Option(help="Seconds that a handle lives unused. [default: 3600]")] = None,
    state_memory: Annotated[str | None, typer.Option(help="Memory for handles. [default: 256MB]")] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="Keys that requests need, one a line.")] = None,
    rate: Annotated[int | None, typer.Option(help="Requests a minute for each key or address.")] = None,
    cors: Annotated[
        list[str] | None, typer.Option(help="Origin of another site that may ask from a browser; repeatable.")
    ] = None,
    flush_ms: Annotated[float | None, typer.Option(help="Milliseconds between a stream's events under load.")] = None,
    drain: Annotated[
        float | None, typer.Option(help="Seconds that streams may go on at the end. [default: 20]")
    ] = None,
    page: Annotated[bool | None, typer.Option("--page/--no-page", help="Whether / shows the page.")] = None,
    runs_folder: Annotated[
        Path | None, typer.Option("--runs", help="A folder of runs whose learning curves /runs shows.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option("--metrics", help="on or off: whether /metrics is there. [default: on]")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Serve runs over HTTP: completions in OpenAI's form, scores, and states that clients keep.

    A client may have the state after a text, as a signed text that this server, or another with the same key and
    model, goes on from. It listens at this machine alone unless there are keys. Ctrl-C or SIGTERM ends it: texts under
    way go on for a while, and then end with their states. With --json the address is printed as one object once it
    listens. At the address itself is a page to type a text into, see what a model makes of it, and let it go on.

    Example: unrolled serve runs/x

    Example: unrolled serve runs/x runs/y --mixture both=x:0.6,y:0.4 --quantize int8

    Example: unrolled serve runs/x --host 0.0.0.0 --api-key-file keys --state-key statekey
    """
    from unrolled.core.extras import require

    require("serve", "fastapi", "uvicorn", "httptools", "prometheus_client")
    from unrolled.core.errors import UsageError
    from unrolled.serve.config import ServeConfig

    given: dict[str, Any] = {
        "host": host, "port": port, "hosts": allow_host, "threads": threads, "streams": streams, "queue": queue,
        "max_tokens": max_tokens, "max_prompt": max_prompt, "max_body": _bytes("--max-body", max_body),
        "max_seconds": max_seconds, "state_key": state_key, "client_state": client_state, "signature": signature,
        "state_bytes": _bytes("--state-bytes", state_bytes), "state_max_age": state_max_age, "state_ttl": state_ttl,
        "state_memory": _bytes("--state-memory", state_memory), "api_key_file": api_key_file, "rate": rate,
        "cors": cors, "flush_ms": flush_ms, "drain": drain, "page": page, "runs_folder": runs_folder,
        "metrics": _switch(metrics),
    }  # fmt: skip
    options, _ = at_test_time(predict, settings, quantize=quantize)
    table = _table(config)
    names = [*runs] if runs else [Path(one) for one in table.pop("runs", [])]
    table.pop("runs", None)
    mixtures = {**table.pop("mixtures", {}), **dict(_mixture(one) for one in mixture or ())}
    if not names:
        raise UsageError("name a run to serve, or a --config file whose [serve] table has runs.")
    merged = {**table, **{name: value for name, value in given.items() if value is not None}}
    if options:
        merged["predict"] = options
    from unrolled.serve.run import serve_runs

    def listening(host: str, port: int, stop: object) -> None:
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        if json:
            typer.echo(as_json({"kind": "server", "address": address}))
        else:
            say(f"serving at {address}; Ctrl-C ends it")

    serve_runs(names, ServeConfig.parse(merged), mixtures, say, listening)


def _table(path: Path | None) -> dict[str, Any]:
    from unrolled.core.config import read_toml
    from unrolled.core.errors import UsageError

    if path is None:
        return {}
    value = read_toml(path)
    if not isinstance(value.get("serve"), dict) or len(value) != 1:
        raise UsageError(f"{path} needs one table, [serve], with options of the server.")
    return dict(value["serve"])


def _mixture(text: str) -> tuple[str, dict[str, float]]:
    from unrolled.core.errors import UsageError

    name, sign, parts = text.partition("=")
    found: dict[str, float] = {}
    try:
        for part in parts.split(","):
            run, _, weight = part.rpartition(":") if ":" in part else (part, "", "1")
            found[run.strip()] = float(weight)
    except ValueError:
        found = {}
    if not (sign and name and found and all(found)):
        raise UsageError(f"--mixture needs the form NAME=RUN:WEIGHT,RUN:WEIGHT (got {text!r}).")
    return name, found


def _bytes(option: str, text: str | None) -> int | None:
    from unrolled.core.errors import UsageError

    if text is None:
        return None
    plain = text.strip().lower()
    unit = next((one for one in ("kb", "mb", "gb", "b") if plain.endswith(one)), "")
    number = plain.removesuffix(unit).strip()
    if not number.isascii() or not number.isdecimal() or len(number) > 15:
        raise UsageError(f"{option} needs a size such as 500000, 64kB or 2MB (got {text!r}).")
    return int(number) * _UNITS.get(unit, 1)


def _switch(text: str | None) -> bool | None:
    from unrolled.core.errors import UsageError

    if text not in (None, "on", "off"):
        raise UsageError(f"--metrics is on or off (got {text!r}).")
    return None if text is None else text == "on"
