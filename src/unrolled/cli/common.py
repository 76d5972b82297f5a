"""The application object and what the verbs share."""

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from unrolled.core.terminal import for_stream, visible

__all__ = [
    "BackendOption",
    "CacheOption",
    "DeviceOption",
    "DtypeOption",
    "DynamicOption",
    "JsonOption",
    "PrecisionOption",
    "PredictOption",
    "QuantizeOption",
    "RecycleOption",
    "SamplesOption",
    "SettingsOption",
    "StateOption",
    "StateOutOption",
    "TemperatureOption",
    "ThreadsOption",
    "WeightsOption",
    "app",
    "as_json",
    "at_test_time",
    "emit",
    "given_text",
    "out",
    "progress_bar",
    "table",
    "use_threads",
    "with_escapes",
    "write",
]

app = typer.Typer(
    name="unrolled",
    help="Recurrent language models: train, measure, adapt, compare and run them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_CONTROLS = re.compile("[\x7f-\x9f]")
# Text of a corpus or a model must come out as it is: no markup, no emoji codes.
out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, ...")]
BackendOption = Annotated[
    str | None,
    typer.Option(
        "--backend",
        help="auto, native, torch, fused, generic, newton, reference, or for scans, matrix states, levels, learners "
        "and attention also fla, chunk, quadratic, closed, doubling, inplace, levels, dense or dual, in place of the "
        "run's own (`unrolled cells` says which a cell has).",
    ),
]
PrecisionOption = Annotated[
    str | None, typer.Option("--precision", help="float32 or bf16 products, in place of the run's own.")
]
TemperatureOption = Annotated[float, typer.Option("--temperature", help="Divides the logits; below 1 sharper.")]
RecycleOption = Annotated[
    str | None,
    typer.Option(
        "--recycle", help="alternate: every second step by the recycler that was trained along; always: none.",
        show_default=False,
    ),
]  # fmt: skip
DynamicOption = Annotated[
    str | None,
    typer.Option(
        "--dynamic", help="Dynamic evaluation: krause, mos, lamb, sgd, sgd_decay or gated.", show_default=False
    ),
]
CacheOption = Annotated[
    int | None, typer.Option("--cache", min=1, help="Continuous cache of so many tokens.", show_default=False)
]
StateOption = Annotated[
    Path | None,
    typer.Option("--state", help="Go on from the state of a text that --state-out or a server wrote."),
]
StateOutOption = Annotated[
    Path | None, typer.Option("--state-out", help="Write the state after the text here, to go on from.")
]
QuantizeOption = Annotated[
    str | None, typer.Option("--quantize", help="Weights in fewer bits: bf16 or int8.", show_default=False)
]
SamplesOption = Annotated[
    int | None, typer.Option("--samples", min=1, help="Monte-Carlo dropout with so many samples.", show_default=False)
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of these, such as dynamic.lr=1e-4, cache.theta=0.6, dropout.rates=0.8."),
]
PredictOption = Annotated[
    list[str] | None,
    typer.Option(
        "--predict",
        help="Anything that is done at test time, by NAME or NAME=VALUE: cache=500, dynamic=krause...; its options by "
        "--set NAME.OPTION=VALUE; repeatable.",
    ),
]
WeightsOption = Annotated[
    str,
    typer.Option("--weights", help="saved (best, averaged where training averages) or raw (the newest, not averaged)."),
]
DtypeOption = Annotated[str, typer.Option("--dtype", help="float32 or float64 arithmetic.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.")]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        import unrolled

        out.print(f"unrolled {unrolled.__version__}")
        raise typer.Exit


def as_json(value: Any) -> str:
    """JSON in one line; control characters are escaped, those too that JSON would allow."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def emit(value: Any) -> None:
    """Print JSON for a program to read."""
    sys.stdout.write(as_json(value) + "\n")


def write(text: str, end: str = "\n") -> None:
    """Print a text as it is, whatever signs it holds; on a terminal control characters appear in a visible form."""
    sys.stdout.write(for_stream(text, sys.stdout) + end)


def given_text(text: str, what: str) -> str:
    """Text from the command line, which is UTF-8 whatever the locale says, by the rule of :mod:`unrolled.data.plain`.

    Raises:
        UsageError: it is not UTF-8.
    """
    from unrolled.data.plain import decode_text

    return decode_text(text.encode(sys.getfilesystemencoding(), "surrogateescape"), what, file=False)


_ESCAPE = re.compile(r"\\(n|t|r|\\|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})")
_NAMED = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


def with_escapes(text: str) -> str:
    """What ``\\n``, ``\\t``, ``\\r``, ``\\xHH``, ``\\uHHHH`` and a double backslash mean."""
    return _ESCAPE.sub(lambda found: _NAMED.get(found[1]) or chr(int(found[1][1:], 16)), text)


def table(columns: list[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table without frame; on a pipe the columns are separated by tabs."""
    if not out.is_terminal:
        for row in [columns, *rows]:
            sys.stdout.write("\t".join(row) + "\n")
        return
    shown = Table(box=None, pad_edge=False)
    for column in columns:
        shown.add_column(Text(visible(column)), overflow="fold")
    for row in rows:
        shown.add_row(*(Text(visible(cell)) for cell in row))
    out.print(shown)


@contextlib.contextmanager
def progress_bar(title: str, wanted: bool) -> Iterator[Callable[[int, int, float], None]]:
    """A bar on a terminal: yields ``advance(done, total, nats per token so far)``."""
    errors = Console(stderr=True)
    if not wanted or not errors.is_terminal:
        yield lambda done, total, nats: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[tail]}"), console=errors, transient=True) as bar:
        task = bar.add_task(visible(title), total=None, tail="")

        def advance(done: int, total: int, nats: float) -> None:
            bar.update(task, completed=done, total=total, tail=f"{nats:.4f} nats" if nats else "")

        yield advance


def at_test_time(
    predict: Sequence[str] | None,
    settings: Sequence[str] | None,
    others: Mapping[str, Any] | None = None,
    **flags: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was asked for at test time, and the verb's other options, each as a nested mapping.

    Args:
        predict: of ``--predict``. settings: of ``--set``, ``cache.theta=0.6`` or ``predict.cache.theta=0.6``.
        others: further options of the verb that ``--set`` may change.
        flags: the main options of adapters by their names; None where not given.
    Raises:
        UsageError: an unknown name.
    """
    from unrolled.core.config import apply_settings, parse_setting
    from unrolled.core.errors import UsageError
    from unrolled.core.registry import unknown_name
    from unrolled.predict import ADAPTERS
    from unrolled.predict.config import as_table

    parts = {name: as_table(name, value) for name, value in flags.items() if value is not None}
    for text in predict or ():
        given = parse_setting(text)[1] if "=" in text else {}
        name = text.partition("=")[0].strip()
        if name not in ADAPTERS:
            raise unknown_name(ADAPTERS.kind, name, ADAPTERS)
        parts[name] = {**parts.get(name, {}), **as_table(name, given)}
    placed = [f"predict.{text}" if re.split("[.=]", text.strip())[0] in ADAPTERS else text for text in settings or ()]
    values = apply_settings({**(others or {}), "predict": parts}, placed)
    asked = values.pop("predict")
    if not isinstance(asked, dict):
        raise UsageError("predict is a table of what is done at test time; write predict.cache.length=500, say.")
    if others is None and values:
        raise unknown_name("config key", next(iter(values)), [*ADAPTERS, "predict"])
    return asked, values


def use_threads(threads: int | None) -> None:
    """Set the number of CPU threads, where one is given, and spare the CPU numbers too small to matter."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
