"""The thread that scores texts."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from unrolled.serve.engine.jobs import Ended, Job, Rows, ScoreJob, TookTooLongError
from unrolled.serve.engine.threads import EngineThread, ShutDownError, fail

__all__ = ["Scorer"]


class Scorer(EngineThread):
    """Scores texts, a window of each in turn."""

    def __init__(self, flush: Callable[[], None]):
        super().__init__("scorer", flush)
        self._jobs: deque[tuple[ScoreJob, Any, dict[str, Any]]] = deque()
        self.read = 0

    def has_work(self) -> bool:
        """See :class:`EngineThread`."""
        return bool(self._jobs)

    def admit(self, job: Job) -> None:
        """See :class:`EngineThread`."""
        assert isinstance(job, ScoreJob)
        self._jobs.append((job, None, {}))

    def turn(self) -> None:
        """See :class:`EngineThread`."""
        job, rows, ends = self._jobs.popleft()
        if job.cancelled:
            return
        found = []
        try:
            if time.monotonic() > job.deadline:
                raise TookTooLongError
            with job.served.lock:
                rows = job.rows(ends) if rows is None else rows
                for row in rows:
                    found.append(row)
                    self.read += row.tokens
                    if len(found) >= job.config.window:
                        break
                else:
                    job.hear(Rows(found))
                    job.hear(Ended(ends["after"]._replace(model=job.served.id)))
                    return
        except Exception as error:
            fail([job], error)
            return
        job.hear(Rows(found))
        self._jobs.append((job, rows, ends))

    def give_up(self) -> None:
        """See :class:`EngineThread`."""
        fail([job for job, *_ in self._jobs], ShutDownError())

    def abandon(self, error: Exception) -> None:
        """See :class:`EngineThread`."""
        fail([job for job, *_ in self._jobs], error)
        self._jobs.clear()
