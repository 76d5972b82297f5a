"""``unrolled watch``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unrolled.cli.common import JsonOption, app, as_json, out, table, write


@app.command()
def watch(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Runs, comparisons, or folders of runs.")],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="One look alone.")] = False,
    json: JsonOption = False,
) -> None:
    """Watch runs go on: losses, speed, time left, machine, last validation. Only reads.

    It follows the runs' files, also in a folder that other machines write, and ends when none goes on any more. With
    --json each look at which something is new is an object of one line.

    Example: unrolled watch runs

    Example: unrolled watch comparisons/sharing runs/big --every 30
    """
    import time

    from unrolled.compare.watch import look

    before = None
    while True:
        found = look(folders)
        if found != before:
            before = found
            if json:
                typer.echo(as_json(found))
            else:
                if not once and out.is_terminal:
                    out.clear()
                _show(found)
        going = any(run["status"] in ("running", "silent") for run in found["runs"])
        going = going or any(one["done"] < one["expected"] and not one["faults"] for one in found["comparisons"])
        if once or not going:
            return
        time.sleep(every)


def _show(found: dict[str, Any]) -> None:
    from unrolled.compare.watch import sparkline

    for one in found["comparisons"]:
        left = "" if one["cpu_hours_left"] is None else f", about {one['cpu_hours_left']:.1f} left"
        write(
            f"{one['folder']}: {one['done']} of {one['expected']} jobs, {len(one['running'])} under way; "
            f"{one['cpu_hours']:.1f} CPU hours spent{left}"
        )
        for fault in one["faults"]:
            write(fault)
    rows = [
        [
            run["folder"], run["status"], f"{run['step']:,}", sparkline(run["losses"]), _number(run["nats"]),
            _number(run["valid"]), _number(run["best"]),
            "" if run["tokens_per_second"] is None else f"{run['tokens_per_second']:,.0f}",
            "" if run["share"] is None else f"{run['share']:.0%}", _span(run["seconds_left"]), run["machine"],
        ]
        for run in found["runs"]
    ]  # fmt: skip
    if rows:
        table(["run", "", "step", "losses", "nats", "valid", "best", "tokens/s", "done", "left", "machine"], rows)
    elif not found["comparisons"]:
        write("no run yet")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
