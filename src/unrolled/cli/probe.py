"""``unrolled probe``: what cells can learn of synthetic problems."""

from pathlib import Path
from typing import Annotated

import typer

from unrolled.cli.common import DeviceOption, JsonOption, app, emit, table, write


@app.command()
def probe(
    problems: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROBLEM...]",
            help="Problems by name, with a label where one is wanted: mqar, copy:selective; absent: list them.",
            show_default=False,
        ),
    ] = None,
    cells: Annotated[str, typer.Option(help="Cells by name, divided by commas.")] = "lstm,mingru,gated_deltanet",
    cell: Annotated[
        list[str] | None,
        typer.Option(help="One more, a pattern ('qrnn*2, mlp') or a table ({name='mgru', factor=32}); repeatable."),
    ] = None,
    points: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUES",
            help="Where runs are measured, such as length=64,128,256, of one problem mqar.length=64,128; absent: what "
            "each problem suggests; repeatable, all combinations.",
        ),
    ] = None,
    match: Annotated[
        str, typer.Option(help="What is equal: params, state (numbers that are carried), none (width).")
    ] = "params",
    size: Annotated[
        int | None, typer.Option(min=1, help="How many of these; absent: 100,000, 2,000, or 64.", show_default=False)
    ] = None,
    lr: Annotated[str, typer.Option(help="Learning rates tried, divided by commas.")] = "1e-3,3e-3,1e-2",
    seeds: Annotated[int, typer.Option(min=1, help="Full runs of each cell.")] = 3,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of each full run; absent: 2,000.", show_default=False)
    ] = None,
    cpu_minutes: Annotated[
        float | None, typer.Option(min=0, help="Of each full run, in place of steps.", show_default=False)
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows measured at each point.")] = 500,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=VALUE", help="Of a problem (mqar.pairs=8) or of the recipe; repeatable."),
    ] = None,
    recipe: Annotated[str, typer.Option(help="Recipe of the task made.")] = "probe",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder, gone on with where it was begun; absent: probes/ and the names."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Processes on this machine.")] = 1,
    png: Annotated[bool, typer.Option("--png", help="The heat map as PNG too.")] = False,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Train cells on synthetic problems, each with its own learning rate, and measure what they can do and how far it
    carries. A folder of a probe is one of `unrolled compare`: status, run and add work on it.

    Example: unrolled probe mqar group --cells lstm,mamba --points length=64,128 --set group.kind=S5 --out probes/x
    """
    from unrolled.compare import Board, work
    from unrolled.compare.probe import ProbeConfig, begun_probe, list_problems, read_probe_points, write_probe
    from unrolled.compare.worker import work_many
    from unrolled.core.errors import UsageError

    if not problems:
        found = list_problems()
        if json:
            emit({"problems": [row._asdict() for row in found]})
            return
        table(["problem", "what it is", "symbols", "measured at"], [row.cells() for row in found])
        return
    try:
        rates = [float(part) for part in lr.split(",")]
    except ValueError as error:
        raise UsageError(f"--lr takes numbers divided by commas, such as 1e-3,3e-3, not {lr!r}.") from error
    config = ProbeConfig.parse({
        "problems": problems, "cells": [*(part.strip() for part in cells.split(",") if part.strip()), *(cell or ())],
        "points": read_probe_points(points or (), problems), "settings": settings or (), "recipe": recipe,
        "match": match, "size": size, "rates": rates, "seeds": seeds, "steps": steps, "cpu_minutes": cpu_minutes,
        "rows": rows,
    })  # fmt: skip
    lock = begun_probe(config, out)
    typer.echo(f"{lock.plan.title} {lock.folder}", err=True)
    if workers > 1:
        code = work_many(lock.folder, workers, ["--device", device], 1, lambda text: typer.echo(text, err=True))
        if code > 1:
            raise typer.Exit(code)
    else:
        work(lock.folder, device=device, tell=lambda text: typer.echo(text, err=True))
    result, note = write_probe(Board(lock), lock.folder, png)
    if json:
        from unrolled.core.files import read_json

        emit(read_json(lock.folder / "probe.json"))
        return
    _show(result, [one.label for one in lock.plan.problem])
    if note is not None:
        typer.echo(note, err=True)
    write(f"written: {lock.folder / 'probe.md'}, table.tsv, probe.json, heat.svg")


def _show(rows: list, problems: list[str]) -> None:  # type: ignore[type-arg]
    from unrolled.compare.probe import probe_table

    for problem in problems:
        write(problem)
        table(*probe_table(rows, problem))
