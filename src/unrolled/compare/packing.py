"""Results of a comparison in one file, and taking those of another over."""

import json
from pathlib import Path
from typing import Any

from unrolled.compare.jobs import RESULTS, Board
from unrolled.compare.result_file import RESULT_KIND
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import atomic_write, make_folder, parse_json, read_bounded, read_json, write_json

__all__ = ["PACKED", "pack", "take_over"]

PACKED = "results.jsonl"
_MOST_PACKED = 1 << 30


def pack(board: Board, folder: Path) -> None:
    """Write every result so far into one file of lines of JSON, by which others can go on: see :func:`take_over`.
    Those of a value that was set aside are in it too: without them others would not know why."""
    jobs = sorted({job.id: job for job in [*board.known(), *board.set_aside()]}.items())
    results = [result for _, job in jobs if (result := board.result(job)) is not None]
    lines = [json.dumps(result, sort_keys=True, allow_nan=False) + "\n" for result in results]
    atomic_write(folder / PACKED, "".join(lines))


def take_over(board: Board, other: Path) -> int:
    """Copy the results of another comparison whose jobs are the same here, to the last setting.

    Args:
        other: its folder, or the file that :func:`pack` wrote.
    Returns:
        how many there were.
    """
    known = _packed(other) if other.is_file() else _unpacked(other)
    make_folder(board.folder / RESULTS)
    taken = 0
    while missing := [job for job in board.todo() if job.id in known]:  # those of a search make further jobs known
        for job in missing:
            if not board.sound(job, known[job.id]):
                raise UnrolledError(f"the result {job.id} of {other} is damaged; delete it there, and take over again.")
            write_json(board.path(job), known[job.id])
        taken += len(missing)
    return taken


def _packed(path: Path) -> dict[str, Any]:
    try:
        values = [parse_json(line) for line in read_bounded(path, _MOST_PACKED).splitlines()]
        return {value["id"]: value for value in values if value["kind"] == RESULT_KIND}
    except (ValueError, KeyError, TypeError) as error:
        raise UnrolledError(f"{path} does not hold the results of a comparison: it is damaged.") from error


def _unpacked(folder: Path) -> dict[str, Any]:
    if not (folder / RESULTS).is_dir():
        raise UsageError(f"{folder} holds no results of a comparison; name its folder, or its {PACKED}.")
    return {path.stem: read_json(path) for path in sorted((folder / RESULTS).glob("*.json"))}
