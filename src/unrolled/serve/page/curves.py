"""Learning curves of the runs in a folder, read from their logs as these grow. Nothing is written or locked."""

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from unrolled.compare.report.drawing import SHADES, Element, Line, count, draw
from unrolled.compare.running import record_of
from unrolled.compare.watch import status_of, watched_folders
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import parse_json
from unrolled.train.metrics import METRICS

__all__ = ["Curves", "Log"]

_POINTS = 200  # of a line that is drawn
_DRAWN = 21  # runs, those that changed last
_AXES = {"step": "optimiser steps", "cpu": "CPU seconds"}
_UNIT = "nats per token"


class Log:
    """The losses of a run, of which only what is new is read.

    Attributes:
        lines: by kind (train, valid) and step: place on each axis, tokens, and nats per token.
        changed: seconds since 1970 at which the file last changed. damaged: whether it has a line that is none.
    """

    def __init__(self, path: Path):
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self.lines: dict[str, dict[int, dict[str, float]]] = {"train": {}, "valid": {}}
        self._place, self._file, self.changed, self.damaged = 0, -1, 0.0, False

    def more(self) -> bool:
        """Read what was written since; whether there was anything."""
        try:
            now = self.path.stat()
        except OSError:
            known = self._place > 0
            self._forget()
            return known
        # a run that is gone on with drops what it wrote after its last save
        anew = now.st_ino != self._file or now.st_size < self._place
        if not anew and (now.st_size, now.st_mtime) == (self._place, self.changed):
            return False
        if anew:
            self._forget()
        self._file, begun, self.changed = now.st_ino, self._place, now.st_mtime
        try:
            self._read()
        except (ValueError, KeyError, TypeError, OverflowError, OSError):
            self._forget()
            if begun:  # lines may have been written over since
                return self.more() or True
            self._file, self._place, self.changed, self.damaged = now.st_ino, now.st_size, now.st_mtime, True
            return True
        return self._place > begun or anew

    def _read(self) -> None:
        with self.path.open("rb") as file:
            file.seek(self._place)
            # what follows the last end of a line is being written
            whole, end, _ = file.read().rpartition(b"\n")
        for line in whole.splitlines():
            value = parse_json(line)
            if value["type"] in self.lines:
                kept = {name: float(value[name]) for name in ("step", "cpu", "tokens", "nats")}
                if not all(map(math.isfinite, kept.values())):
                    raise ValueError("no number")
                self.lines[value["type"]][int(value["step"])] = kept
        self._place += len(whole) + len(end)

    def points(self, kind: str, axis: str) -> list[tuple[float, float]]:
        """Of one curve, thinned: for training the means of neighbours, for validation some of the points."""
        values = [line for _, line in sorted(self.lines[kind].items())]
        some = [values[low:high] for low, high in _parts(len(values))]
        losses: Callable[[Sequence[float]], float] = (
            (lambda all_of: sum(all_of) / len(all_of)) if kind == "train" else (lambda all_of: all_of[-1])
        )
        return [(part[-1][axis], losses([line["nats"] for line in part])) for part in some]


class Curves:
    """The runs in a folder: a run, a comparison, or a folder of runs.

    Attributes:
        looks: how often the folder was read.
    Raises:
        UsageError: there is no such folder.
    """

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise UsageError(f"there is no folder {folder}; give a run, a comparison, or a folder of runs.")
        self.folder, self.looks = folder, 0
        self._logs: dict[Path, Log] = {}
        self._told: dict[str, str] = {}
        self._lock = threading.Lock()

    def look(self, anew: bool = False) -> dict[str, Any] | None:
        """What is to be shown, in plain JSON values; None: the same as before, unless it is wanted anew."""
        with self._lock:
            self.looks += 1
            folders = dict(watched_folders([self.folder]))
            logs = {path: self._logs.get(path) or Log(path / METRICS) for path in folders}
            changed = [log.more() for log in logs.values()]
            told = {}
            for path, host in folders.items():
                told[self._name(path)] = self._status(path, host, logs[path])
            same = told == self._told and logs.keys() == self._logs.keys()
            if same and not any(changed) and not anew and self.looks > 1:
                return None
            self._logs, self._told = logs, told
            return self._value({self._name(path): log for path, log in logs.items()})

    def _name(self, path: Path) -> str:
        return path.resolve().name if path == self.folder else path.name

    def _status(self, path: Path, host: str, log: Log) -> str:
        try:
            return "damaged log" if log.damaged else status_of(path, record_of(path), host)[0]
        except UnrolledError:
            return "damaged record"

    def _value(self, logs: dict[str, Log]) -> dict[str, Any]:
        newest = sorted(logs, key=lambda name: logs[name].changed, reverse=True)[:_DRAWN]
        shades = {name: SHADES[i % len(SHADES)] for i, name in enumerate(sorted(newest))}
        figures = {axis: _figure(logs, shades, axis) for axis in _AXES}
        rows = [self._row(name, log, shades.get(name)) for name, log in logs.items()]
        return {"unit": _UNIT, "runs": rows, "figures": figures, "drawn": len(newest)}

    def _row(self, name: str, log: Log, shade: str | None) -> dict[str, Any]:
        train, valid = ([line for _, line in sorted(log.lines[kind].items())] for kind in ("train", "valid"))
        newest = max([*train[-1:], *valid[-1:]], key=lambda line: line["step"], default={"step": 0.0, "tokens": 0.0})
        return {
            "name": name, "status": self._told[name], "shade": shade, "step": int(newest["step"]),
            "tokens": int(newest["tokens"]), "train": train[-1]["nats"] if train else None,
            "valid": valid[-1]["nats"] if valid else None, "best": min((line["nats"] for line in valid), default=None),
        }  # fmt: skip


def _figure(logs: dict[str, Log], shades: dict[str, str], axis: str) -> Element | None:
    lines = []
    for faint, kind, what in ((True, "train", "training"), (False, "valid", "validation")):
        for name, shade in shades.items():
            points = logs[name].points(kind, axis)
            if points:
                lines.append(Line(points, shade, f"{name}, {what}: {points[-1][1]:.4f} {_UNIT}", faint))
    label = f"losses of {len(shades)} runs in {_UNIT} against {_AXES[axis]}"
    return draw(lines, label, _AXES[axis], count) if lines else None


def _parts(length: int) -> Iterable[tuple[int, int]]:
    """At most so many parts as a line has points, none of them empty."""
    parts = min(length, _POINTS)
    return [(i * length // parts, (i + 1) * length // parts) for i in range(parts)]
