"""Runs and comparisons as they go on, read from their files alone: nothing is written, and no lock is taken."""

import contextlib
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.compare.claims import Claims
from unrolled.compare.jobs import Board
from unrolled.compare.lock import LOCK, open_lock
from unrolled.compare.running import record_of, train_lines, valid_lines
from unrolled.compare.status import progress
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import read_json
from unrolled.runs.names import CONFIG
from unrolled.train.metrics import METRICS

__all__ = ["Watched", "look", "sparkline", "status_of", "watched_folders"]

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH, _RECENT = 24, 10
_SILENT = 300.0  # seconds without a line after which a run that no process here trains is called silent


class Watched(NamedTuple):
    """How far one run is.

    Attributes:
        folder: of the run. status: running, silent (no line for five minutes, and no process of this machine trains
            it), or what its record says. machine: that trains it, as far as that is known.
        step, tokens: of the last line. losses: the training losses so far, thinned. nats: the last of them. valid: the
            last validation, nats per token. best: the least one.
        tokens_per_second: over the last lines. share: of the budget, 0 to 1. seconds_left: to the end of the budget;
            both are None where the budget is one in epochs, or of several kinds.
        lines: of the log.
    """

    folder: str
    status: str
    machine: str
    step: int
    tokens: int
    losses: tuple[float, ...]
    nats: float | None
    valid: float | None
    best: float | None
    tokens_per_second: float | None
    share: float | None
    seconds_left: float | None
    lines: int


def watched_folders(folders: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """The runs in folders, each a run, a comparison or a folder of runs, and on which machine a comparison's worker
    trains each.

    Raises:
        UsageError: a folder that is not there.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"there is no folder {folder}; give a run, a comparison, or a folder of runs.")
        if (folder / CONFIG).is_file():
            yield folder, ""
            continue
        inner = folder / "runs" if (folder / LOCK).is_file() else folder
        hosts = {job: str(who.get("host", "")) for job, who in _Reader(folder).living().items()}
        for path in sorted(inner.iterdir()) if inner.is_dir() else ():
            if (path / CONFIG).is_file():
                yield path, hosts.get(path.name, "")


def look(folders: Sequence[Path]) -> dict[str, Any]:
    """One look, as plain JSON values: ``runs``, and ``comparisons`` with their jobs."""
    comparisons = []
    for folder in folders:
        if (folder / LOCK).is_file():
            board = Board(open_lock(folder))
            found = progress(board, _Reader(folder))
            comparisons.append({"folder": str(folder), "title": board.lock.plan.title, **found.to_json()})
    runs = [watched(path, host)._asdict() for path, host in watched_folders(folders)]
    return {"kind": "unrolled watch", "runs": runs, "comparisons": comparisons}


def watched(folder: Path, host: str = "") -> Watched:
    """How far a run is. host: of the comparison's worker that trains it."""
    train, valid, record, damaged = [], [], {}, False
    try:
        train, valid, record = train_lines(folder), valid_lines(folder), record_of(folder)
    except UnrolledError:
        damaged = True
    newest = max([*train, *valid], key=lambda line: line["tokens"], default={"tokens": 0, "step": 0})
    status, machine = status_of(folder, record, host)
    recent = train[-_RECENT:]
    rate = None
    if len(recent) > 1 and recent[-1]["wall"] > recent[0]["wall"]:
        rate = (recent[-1]["tokens"] - recent[0]["tokens"]) / (recent[-1]["wall"] - recent[0]["wall"])
    share, left = _budget(folder, train, rate)
    ended = status not in ("running", "silent")
    losses, checks = [line["nats"] for line in train], [line["nats"] for line in valid]
    return Watched(
        folder=str(folder),
        status="damaged log" if damaged else status,
        machine=machine,
        step=int(newest["step"]),
        tokens=int(newest["tokens"]),
        losses=tuple(losses[i] for i in _thinned(len(losses))),
        nats=losses[-1] if losses else None,
        valid=checks[-1] if checks else None,
        best=min(checks, default=None),
        tokens_per_second=rate,
        share=1.0 if status == "finished" else share,
        seconds_left=None if ended else left,
        lines=len(train) + len(valid),
    )


def sparkline(values: Sequence[float]) -> str:
    """Bars of the values, from their least to their largest."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    if high == low:
        return _BARS[0] * len(values)
    return "".join(_BARS[min(7, int(8 * (value - low) / (high - low)))] for value in values)


def _thinned(count: int) -> list[int]:
    """At most so many places as a line shows, the last one among them."""
    return (
        sorted({round((i + 1) * count / _WIDTH) - 1 for i in range(_WIDTH)}) if count > _WIDTH else list(range(count))
    )


def status_of(folder: Path, record: dict[str, Any], host: str) -> tuple[str, str]:
    """How a run is, and which machine trains it; see :class:`Watched`. record: its own; host: see :func:`watched`."""
    if record.get("status"):
        where = record.get("environment", {})
        return str(record["status"]), str(where.get("cpu", "")) if isinstance(where, dict) else ""
    if _trained_here(folder / METRICS):
        return "running", platform.node()
    try:
        age = time.time() - (folder / METRICS).stat().st_mtime
    except OSError:
        return ("running" if host else "silent"), host
    return ("running" if host or age < _SILENT else "silent"), host


def _trained_here(path: Path) -> bool:
    """Whether a process of this machine holds the lock of a run's log. The system's own list is read: to try the lock
    would keep a run from starting in that moment."""
    with contextlib.suppress(OSError):
        number = path.stat().st_ino
        locks = Path("/proc/locks").read_text().splitlines()
        return any(f":{number} " in line and " WRITE " in line for line in locks)
    return False


def _budget(folder: Path, train: list[dict[str, Any]], rate: float | None) -> tuple[float | None, float | None]:
    """The share of the budget that is used, and seconds to its end; None where that is not known."""
    try:
        config = read_json(folder / CONFIG)["train"]
        phases = [config, *config.get("then", [])]
        given = [{kind: one[kind] for kind in _USED if one.get(kind)} for one in phases]
    except (UnrolledError, KeyError, TypeError, AttributeError):
        return None, None
    kinds = {kind for one in given for kind in one}
    if len(kinds) != 1 or not all(given) or not train:
        return None, None
    kind = kinds.pop()
    total, last = sum(one[kind] for one in given), train[-1]
    share = min(1.0, _USED[kind](last) / total)
    return share, None if not share or rate is None else last["wall"] * (1 - share) / share


_USED: dict[str, Any] = {
    "steps": lambda line: line["step"],
    "tokens": lambda line: line["tokens"],
    "minutes": lambda line: line["wall"] / 60,
    "cpu_minutes": lambda line: line["cpu"] / 60,
}


class _Reader(Claims):
    """Claims whose ages are taken by this machine's clock where the folder may not be written, as it may not here."""

    def _now(self) -> float:
        """The time of this machine, or that of the newest heartbeat where that is later."""
        beats = [time.time()]
        for path in self.folder.glob("*.json") if self.folder.is_dir() else ():
            with contextlib.suppress(OSError):
                beats.append(path.stat().st_mtime)
        return max(beats)
