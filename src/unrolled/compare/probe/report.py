"""What a probe writes: a table, a record, a page of Markdown and a heat map."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unrolled.analyse.plots import draw, plots_wanted, tsv
from unrolled.compare.found import found
from unrolled.compare.jobs import Board
from unrolled.compare.probe.rows import CHANCE, EXACT, ProbeRow, probe_rows
from unrolled.core.files import atomic_write, make_folder, write_json
from unrolled.core.record import environment

__all__ = ["TABLE", "heat_map", "probe_table", "write_probe"]

TABLE, RECORD, MARKDOWN, HEAT = "table.tsv", "probe.json", "probe.md", "heat"
_COLUMNS = (
    "problem", "cell", "width", "parameters", "numbers of state", "learning rate", "seeds", "diverged", "CPU seconds",
    "point", "share", "share low", "share high", "excess nats", "excess low", "excess high", "remark",
)  # fmt: skip

_HEAD = """# What cells can learn

Shares of right answers, of possible symbols where these are drawn by chance: the mean over seeds and the least and
largest of them, of a single seed the 95 % interval over rows. Learning rates were chosen for each cell on validation
rows.
"""


def write_probe(board: Board, out: Path, png: bool = False) -> tuple[list[ProbeRow], str | None]:
    """Write everything that a probe has found so far.

    Returns:
        the rows, and a sentence where the heat map is left out, since matplotlib is not installed.
    """
    problems = board.lock.plan.problem
    value = found(board)
    rows = probe_rows(value, problems)
    make_folder(out)
    atomic_write(out / TABLE, tsv(_COLUMNS, _long(rows)))
    write_json(out / RECORD, {
        "kind": "unrolled probe",
        "version": 1,
        "plan_sha256": value.sha256,
        "problems": [one.model_dump(mode="json") for one in problems],
        "rows": [_json(row) for row in rows],
        "environment": environment(),
    })  # fmt: skip
    atomic_write(out / MARKDOWN, _markdown(rows, [one.label for one in problems]))
    note = plots_wanted()
    if note is None and any(row.learned is not None and row.shares for row in rows):
        heat_map(out / HEAT, rows, png)
    return rows, note


def _json(row: ProbeRow) -> dict[str, Any]:
    value = row._asdict()
    for name in ("shares", "excess"):
        value[name] = {point: cell._asdict() for point, cell in value[name].items()}
    return {**value, "remark": row.said}


def _long(rows: Sequence[ProbeRow]) -> list[list[Any]]:
    """One line a row and point."""
    lines = []
    for row in rows:
        head = [
            row.problem, row.system, row.width or None, row.parameters or None, row.state or None, row.rate,
            row.seeds or None, row.diverged if row.seeds else None, row.cpu_seconds or None,
        ]  # fmt: skip
        for point in dict.fromkeys([*row.shares, *row.excess]):
            share, excess = row.shares.get(point), row.excess.get(point)
            lines.append([*head, point, *(share or (None,) * 3), *(excess or (None,) * 3), row.said])
    return lines


def probe_table(rows: Sequence[ProbeRow], problem: str) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of one problem's table, for readers."""
    own = [row for row in rows if row.problem == problem]
    points = list(dict.fromkeys(point for row in own for point in (*row.shares, *row.excess)))
    excess = any(row.excess for row in own)
    heads = ["cell", "width", "parameters", "state", "rate", "CPU s", *points]
    heads += [f"excess nats, {point}" for point in points] if excess else []
    cells = []
    for row in own:
        numbers = [f"{n:,}" if n else "" for n in (row.width, row.parameters, row.state)]
        rate = "" if row.rate is None else f"{row.rate}{' (edge)' if row.at_edge else ''}"
        line = [row.system, *numbers, rate, f"{row.cpu_seconds:.0f}" if row.seeds else ""]
        line += [str(row.shares.get(point, "")) for point in points]
        line += [str(row.excess.get(point, "")) for point in points] if excess else []
        cells.append([*line, row.said])
    return [*heads, "remark"], cells


def _markdown(rows: Sequence[ProbeRow], problems: Sequence[str]) -> str:
    parts = [_HEAD]
    for problem in problems:
        heads, cells = probe_table(rows, problem)
        lines = [heads, ["---", *["---:"] * (len(heads) - 2), "---"], *cells]
        parts.append(f"## {problem}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines))
    return "\n".join(parts)


def heat_map(path: Path, rows: Sequence[ProbeRow], png: bool = False) -> None:
    """Systems down, problems and points across; the shade is how far a share is from chance to all.

    Args:
        path: of the files, without an ending.
    """
    systems = list(dict.fromkeys(row.system for row in rows if row.learned is not None))
    columns = list(dict.fromkeys((row.problem, point) for row in rows for point in row.shares if row.system != EXACT))
    chance = {
        (row.problem, point): cell.value for row in rows if row.system == CHANCE for point, cell in row.shares.items()
    }
    shares = np.full((len(systems), len(columns)), np.nan)
    for row in rows:
        if row.learned is not None:
            for point, cell in row.shares.items():
                shares[systems.index(row.system), columns.index((row.problem, point))] = cell.value
    least = np.array([chance.get(column, 0.0) for column in columns])
    shade = np.clip((shares - least) / (1 - least), 0, 1)

    def fill(figure: Any) -> None:
        axes = figure.subplots()
        axes.imshow(shade, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        for (i, j), share in np.ndenumerate(shares):
            if np.isfinite(share):
                axes.text(j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=7,
                          color="white" if shade[i, j] < 0.5 else "black")  # fmt: skip
        axes.set_yticks(range(len(systems)), systems)
        axes.set_xticks(
            range(len(columns)), [f"{problem}, {point}" for problem, point in columns], rotation=60, ha="right"
        )
        axes.set_title("share right in %; dark: no better than guessing", fontsize=9)

    draw(path, (2.5 + 0.42 * len(columns), 1.8 + 0.28 * len(systems)), fill, png)
