"""``unrolled bench``."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unrolled.cli.common import JsonOption, ThreadsOption, app, emit, progress_bar, table, use_threads, write

if TYPE_CHECKING:
    from unrolled.bench import BenchRecord


@app.command()
def bench(
    cells: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CELL]...",
            help="Cells by name or as tables ({name='mogrifier', rounds=4}), or operations by name (linear, ...); "
            "absent: lstm, gru, mlstm, mgru, mogrifier.",
        ),
    ] = None,
    backends: Annotated[
        list[str] | None, typer.Option("--backend", help="May be repeated; absent: every backend that serves the cell.")
    ] = None,
    widths: Annotated[
        list[int] | None,
        typer.Option("--width", min=1, help="Of input and cell; may be repeated; absent: 256 and 512."),
    ] = None,
    batches: Annotated[
        list[int] | None, typer.Option("--batch", min=1, help="Sequences; may be repeated; absent: 32.")
    ] = None,
    windows: Annotated[
        list[int] | None, typer.Option("--window", min=1, help="Steps; may be repeated; absent: 100.")
    ] = None,
    passes: Annotated[
        list[str] | None,
        typer.Option(
            "--pass",
            help="forward, both (and all gradients), step (one step a call) or decode (a whole model, one token a "
            "call); may be repeated; absent: both.",
        ),
    ] = None,
    precisions: Annotated[
        list[str] | None,
        typer.Option(
            "--precision",
            help="float32 or bf16 products, of decode the weights, also int8; may be repeated.",
        ),
    ] = None,
    ways: Annotated[
        list[str] | None,
        typer.Option(
            "--way",
            help="Of decode: time texts that are written so too, beside plain draws: settings with commas between, of "
            "the sampler (top_p=0.9), of a method (beams, as many as the batch; search=100; draft=RUN; "
            "guidance=0.5; contrast=RUN), a constraint (regex=[a-z ]+), or at test time (cache=500); may be "
            "repeated.",
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", help="Of decode: the model of a run, in place of models of cells with random weights."),
    ] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Times that each row is timed; absent: 7.")] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Limit for the whole command, checks included; each row is checked, called once and timed once in any "
            "case; absent: 60, or 8 for each row where that is more."
        ),
    ] = None,
    peers: Annotated[
        bool | None,
        typer.Option(
            "--peers/--no-peers", help="Time torch.nn, the reference and the published loop too (the default)."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another setting, such as layers or vocabulary (of decode), seed, peak_size."),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", metavar="A.json B.json", help="Measure nothing: B beside A, both written by --out."),
    ] = None,
    record_file: Annotated[Path | None, typer.Option("--out", "-o", help="Write the record here as JSON.")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write the table here in Markdown.")] = None,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Measure speed and memory: cells by every backend, beside torch.nn.LSTM or GRU and the loop as it is published.

    Each backend is compared with the reference first, and one that differs is refused: the exit code is 1 then. What is
    measured, and how to read the table, is on the page docs/speed.md.

    Example: unrolled bench lstm mlstm --width 256 --repeats 3

    Example: unrolled bench --run runs/x --pass decode --batch 1 --batch 32 --way cache=500 --way top_p=0.9
    """
    started = time.perf_counter()
    from unrolled.bench import BenchConfig, bench_markdown, run_bench
    from unrolled.core.config import apply_settings
    from unrolled.core.errors import UsageError
    from unrolled.core.files import atomic_write
    from unrolled.core.memory import keep_freed_memory

    given = {
        "cells": None if not cells else [_cell(text) for text in cells],
        "backends": backends or None,
        "widths": widths or None,
        "batches": batches or None,
        "windows": windows or None,
        "passes": passes or None,
        "precisions": precisions or None,
        "ways": ways or None,
        "run": run,
        "repeats": repeats,
        "seconds": seconds,
        "peers": peers,
    }
    given = {key: value for key, value in given.items() if value is not None}
    for file in (record_file, markdown):
        _writable(file)
    if compare is not None:
        if given or settings or threads is not None:
            raise UsageError(
                "--compare measures nothing; leave out cells and all options but --out, --markdown, --json."
            )
        _compare(compare, record_file, markdown, json)
        return
    config = BenchConfig.parse(apply_settings(given, settings or ()))
    use_threads(threads)
    keep_freed_memory()  # as training does
    with _progress(json) as tell:
        record = run_bench(config, tell, spent=time.perf_counter() - started)
    if record_file is not None:
        record.save(record_file)
    if markdown is not None:
        atomic_write(markdown, bench_markdown(record))
    if json:
        emit(record.as_json())
    else:
        _print(record)
    if any(row.status == "refused" for row in record.rows):
        raise typer.Exit(1)


@contextlib.contextmanager
def _progress(json: bool) -> Iterator[Callable[[str, float], None]]:
    """A bar on a terminal; elsewhere, and beside JSON, a line on standard error for each thing that is begun."""
    from rich.console import Console

    if Console(stderr=True).is_terminal and not json:
        with progress_bar("measuring", True) as advance:
            yield lambda what, done: advance(round(1000 * done), 1000, 0.0)
        return
    said = ""

    def tell(what: str, done: float) -> None:
        nonlocal said
        if what != said:  # a repetition is heard of at each of its rows
            sys.stderr.write(f"{what}\n")
            sys.stderr.flush()
        said = what

    yield tell


def _cell(text: str) -> Any:
    """A cell as an argument: its name, or a table in TOML or JSON."""
    from json import JSONDecodeError, loads

    from unrolled.core.config import parse_setting
    from unrolled.core.errors import UsageError

    _, value = parse_setting(f"cell={text}")
    if isinstance(value, str) and value.startswith("{"):  # no TOML; the parser leaves it as it was
        try:
            return loads(value)
        except JSONDecodeError as error:
            raise UsageError(f"{text!r} is no cell: write its name, or a table such as {{name='lstm'}}.") from error
    return value


def _writable(file: Path | None) -> None:
    """Refuse a file that cannot be written before minutes have gone by."""
    from unrolled.core.errors import UsageError
    from unrolled.core.files import make_folder

    if file is not None:
        make_folder(file.parent)
        if file.is_dir():
            raise UsageError(f"{file} is a folder; name a file.")


def _print(record: "BenchRecord") -> None:
    from unrolled.bench import bench_table, machine_lines, reasons

    for line in machine_lines(record):
        write(line)
    table(*bench_table(record))
    for line in reasons(record):
        write(line)


def _compare(files: tuple[Path, Path], record_file: Path | None, markdown: Path | None, json: bool) -> None:
    from unrolled.bench import BenchRecord, compare_records, comparison_lines, comparison_markdown, comparison_table
    from unrolled.core.files import atomic_write, write_json

    found = compare_records(*(BenchRecord.load(file) for file in files))
    if record_file is not None:
        write_json(record_file, found.as_json())
    if markdown is not None:
        atomic_write(markdown, comparison_markdown(found))
    if json:
        emit(found.as_json())
        return
    for line in comparison_lines(found):
        write(line)
    table(*comparison_table(found))
