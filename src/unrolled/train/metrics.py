"""``metrics.jsonl``: one line of JSON an event, and the claim of one process on its run directory."""

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unrolled.core.errors import UsageError
from unrolled.core.files import writing
from unrolled.train.tracking import Tracker

__all__ = ["METRICS", "MetricsLog", "TakenError"]

METRICS = "metrics.jsonl"


class TakenError(UsageError):
    """The run directory belongs to another process."""


class MetricsLog:
    """The open log of a run. While it is open no other process can train in this directory.

    Args:
        run: the run directory. trackers: hear of every line too.
    Raises:
        TakenError: another process trains there. UsageError: the file cannot be written.
    """

    def __init__(self, run: Path, trackers: Sequence[Tracker] = ()):
        self.path, self._trackers = run / METRICS, trackers
        with writing(self.path):
            self._file = self.path.open("ab", buffering=0)
        try:
            # the system drops this lock when the process ends, however it ends
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise TakenError(
                f"another process is training in {run}; wait for it, stop it, or choose another --out."
            ) from error

    def append(self, **event: Any) -> None:
        """Write one line, at once: who follows the file sees whole lines."""
        with writing(self.path):
            self._file.write(json.dumps(event, allow_nan=False).encode() + b"\n")
        for tracker in self._trackers:
            tracker.event(event)

    def flush(self) -> int:
        """Force everything to disk; returns the length in bytes."""
        with writing(self.path):
            os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def begin(self, size: int) -> None:
        """Go on after the first ``size`` bytes; what was written after them is forgotten."""
        if os.fstat(self._file.fileno()).st_size > size:
            with writing(self.path):
                self._file.truncate(size)
        if self._trackers:
            past = [json.loads(line) for line in self.path.read_bytes().splitlines()]
            for tracker in self._trackers:
                tracker.begin(past)

    def close(self) -> None:
        """End the claim."""
        for tracker in self._trackers:
            tracker.close()
        self._file.close()
