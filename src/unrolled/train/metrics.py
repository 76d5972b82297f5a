"""``metrics.jsonl``: one line of JSON an event, and the claim of one process on its run directory."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from unrolled.core.errors import UsageError
from unrolled.core.files import writing

__all__ = ["METRICS", "MetricsLog", "TakenError"]

METRICS = "metrics.jsonl"


class TakenError(UsageError):
    """The run directory belongs to another process."""


class MetricsLog:
    """The open log of a run. While it is open no other process can train in this directory.

    Args:
        run: the run directory.
    Raises:
        TakenError: another process trains there. UsageError: the file cannot be written.
    """

    def __init__(self, run: Path):
        self.path = run / METRICS
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

    def flush(self) -> int:
        """Force everything to disk; returns the length in bytes."""
        with writing(self.path):
            os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def cut(self, size: int) -> None:
        """Forget what was written after the file had ``size`` bytes."""
        if os.fstat(self._file.fileno()).st_size > size:
            with writing(self.path):
                self._file.truncate(size)

    def close(self) -> None:
        """End the claim."""
        self._file.close()
