"""``unrolled compare status`` and ``report``."""

from typing import Annotated, Any

import typer

from unrolled.cli.common import DeviceOption, JsonOption, emit, out, table, write
from unrolled.cli.compare.common import FolderArgument, verbs


@verbs.command()
def status(
    folder: FolderArgument,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Look again every few seconds, and keep DIR/live.html, a page of the curves."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show how far a comparison is: jobs, who works on them, figures so far, hours left. Only reads.

    Example: unrolled compare status comparisons/sharing --watch
    """
    from unrolled.compare import Board, open_lock
    from unrolled.compare.status import progress
    from unrolled.core.errors import UsageError

    board = Board(open_lock(folder))
    if watch and json:
        raise UsageError("--json shows one look; leave out --watch.")
    if watch:
        _watch(board)
        return
    found = progress(board)
    if json:
        emit(found.to_json())
        return
    _show(found, _own_unit(board) or "token")


def _own_unit(board: Any) -> str:
    """What a loss is of, such as frame; empty for tokens."""
    units = {one.text.unit for one in board.lock.systems}
    return units.pop() if len(units) == 1 else ""


def _show(found: Any, unit: str) -> None:
    rows = [
        [
            row["system"], row["corpus"], f"{row['parameters']:,}", str(row["searched"]),
            "" if row["chosen"] is None else str(row["chosen"]),
            f"{row['runs']} of {row['wanted']}" + (f", {row['diverged']} diverged" if row["diverged"] else ""),
            "" if row["nats_per_token"] is None else f"{row['nats_per_token']:.4f}",
        ]
        for row in found.rows
    ]  # fmt: skip
    table(["system", "corpus", "parameters", "searched", "chosen", "runs", f"nats per {unit}"], rows)
    left = "" if found.cpu_hours_left is None else f", about {found.cpu_hours_left:.1f} left"
    write(f"{found.done} of {found.expected} jobs; {found.cpu_hours:.1f} CPU hours spent{left}")
    for job, worker in found.running.items():
        write(f"running: {job} on {worker.get('host')}, process {worker.get('pid')}")
    for fault in found.faults:
        write(fault)


def _watch(board: Any) -> None:
    import time

    from unrolled.compare.report import live_page
    from unrolled.compare.status import curves, progress, states
    from unrolled.compare.verdicts import loss_unit
    from unrolled.core.files import atomic_write

    page = board.folder / "live.html"
    characters = all(one.text.characters for one in board.lock.systems)
    unit = loss_unit(characters, _own_unit(board))
    while True:
        found = progress(board)
        atomic_write(page, live_page(curves(board), states(board, found.running), board.lock.plan.title, unit))
        out.clear()
        _show(found, _own_unit(board) or "token")
        write(f"learning curves: {page}")
        if not found.running and (found.done >= found.expected or found.faults):
            return
        time.sleep(5)


@verbs.command()
def report(
    folder: FolderArgument,
    test: Annotated[
        bool, typer.Option("--test", help="Score every final model once on the test split, and write that down.")
    ] = False,
    again: Annotated[
        str | None, typer.Option(help="Why the test split is scored once more; the report prints it.")
    ] = None,
    png: Annotated[bool, typer.Option("--png", help="Figures as PNG too.")] = False,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Answer what the plan asks: report.md, report.html, tables, record.json and figures in the folder.

    Example: unrolled compare report comparisons/sharing
    """
    from unrolled.compare import Comparison
    from unrolled.compare.test_split import score_all
    from unrolled.core.errors import UsageError
    from unrolled.core.files import read_json

    if again is not None and not test:
        raise UsageError("--again goes with --test.")
    comparison = Comparison(folder)
    if test:
        score_all(comparison.board, again, lambda text: typer.echo(text, err=True), device)
    path = comparison.report(png=png)
    if json:
        emit(read_json(folder / "record.json", 1 << 28))
        return
    write(comparison.answer)
    write(f"report: {path}, {path.with_suffix('.html')}")
