"""Results of a comparison in one file, and taking those of another over."""

import json
from pathlib import Path
from typing import Any

from unrolled.compare.jobs import RESULTS, Board
from unrolled.compare.lock import Lock, is_lock, open_lock, sealed_lock, unsealed_lock
from unrolled.compare.result_file import RESULT_KIND
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import atomic_write, make_folder, parse_json, read_bounded, read_json, write_json

__all__ = ["PACKED", "pack", "take_over"]

PACKED = "results.jsonl"
_MOST_PACKED = 1 << 30


def pack(board: Board, folder: Path) -> None:
    """Write the registered plan and every result so far into one file of lines of JSON, by which others can go on: see
    :func:`take_over`. Results of a value that was set aside are in it too: without them others would not know why."""
    jobs = sorted({job.id: job for job in [*board.known(), *board.set_aside()]}.items())
    results = [result for _, job in jobs if (result := board.result(job)) is not None]
    lines = [json.dumps(one, sort_keys=True, allow_nan=False) + "\n" for one in (sealed_lock(board.lock), *results)]
    atomic_write(folder / PACKED, "".join(lines))


def take_over(board: Board, other: Path) -> int:
    """Copy the results of another comparison whose jobs are the same here, to the last setting.

    A setting that did not exist when the other was registered counts as left at its default, which by the house's rule
    is what was done before there was a choice; so results outlive the release that made them.

    Args:
        other: its folder, or the file that :func:`pack` wrote.
    Returns:
        how many there were.
    """
    if other.name == PACKED and not other.exists():  # no report was made yet; the results lie beside it one by one
        other = other.parent
    lock, known = _packed(other) if other.is_file() else _unpacked(other)
    theirs = Board(lock)
    make_folder(board.folder / RESULTS)
    taken, left = 0, set[str]()
    while missing := [job for job in board.todo() if job.id not in left]:  # those of a search make further ones known
        for job in missing:
            name = theirs.same(job, board)
            if name is None or name not in known:
                left.add(job.id)
                continue
            value = known[name]
            if not theirs.sound(job._replace(id=name), value):
                raise UnrolledError(f"the result {name} of {other} is damaged; delete it there, and take over again.")
            write_json(board.path(job), {**value, "id": job.id})
            taken += 1
    return taken


def _packed(path: Path) -> tuple[Lock, dict[str, Any]]:
    try:
        plan, *values = [parse_json(line) for line in read_bounded(path, _MOST_PACKED).splitlines()]
        results = {value["id"]: value for value in values if value["kind"] == RESULT_KIND}
    except (ValueError, KeyError, TypeError) as error:
        raise UnrolledError(f"{path} does not hold the results of a comparison: it is damaged.") from error
    if not is_lock(plan):
        raise UnrolledError(
            f"{path} does not begin with the plan whose results it holds; give the comparison's folder."
        )
    return unsealed_lock(plan, path), results


def _unpacked(folder: Path) -> tuple[Lock, dict[str, Any]]:
    if not (folder / RESULTS).is_dir():
        raise UsageError(f"{folder} holds no results of a comparison; name its folder, or its {PACKED}.")
    return open_lock(folder), {path.stem: read_json(path) for path in sorted((folder / RESULTS).glob("*.json"))}
