"""``metrics.jsonl``: one line of JSON an event, and the claim of one process on its run directory."""

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import writing
from unrolled.train.tracking import Tracker

__all__ = ["METRICS", "MetricsLog", "NoLog", "TakenError"]

METRICS = "metrics.jsonl"


class TakenError(UsageError):
    """The run directory belongs to another process."""


class NoLog:
    """The log of a process that keeps none, since another one of its group does."""

    def append(self, **event: Any) -> None:
        """Nothing."""

    def flush(self) -> int:
        """Nothing; no bytes."""
        return 0

    def begin(self, size: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class MetricsLog(NoLog):
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
        line = json.dumps(event, allow_nan=False).encode() + b"\n"
        with writing(self.path):
            while line:  # a disk that is just full takes a part without a word, and fails at the rest
                line = line[self._file.write(line) :]
        for tracker in self._trackers:
            tracker.event(event)

    def flush(self) -> int:
        """Force everything to disk; returns the length in bytes."""
        with writing(self.path):
            os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def begin(self, size: int) -> None:
        """Go on after the first ``size`` bytes; what was written after them is forgotten.

        Raises:
            UnrolledError: there are trackers, and what they are to hear of is damaged.
        """
        if os.fstat(self._file.fileno()).st_size > size:
            with writing(self.path):
                self._file.truncate(size)
        if self._trackers:
            try:
                past = [json.loads(line) for line in self.path.read_bytes().splitlines()]
            except ValueError as error:
                raise UnrolledError(f"{self.path} is damaged, and cannot be copied; resume without --track.") from error
            for tracker in self._trackers:
                tracker.begin(past)

    def close(self) -> None:
        """End the claim."""
        for tracker in self._trackers:
            tracker.close()
        self._file.close()
