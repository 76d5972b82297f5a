"""What the engine's threads have in common: a box of jobs, and turns of work."""

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable

import torch

from unrolled.core.errors import UnrolledError
from unrolled.serve.engine.jobs import Failed, Job

__all__ = ["EngineThread", "ShutDownError", "fail"]


_FLUSH = 0.002


class ShutDownError(UnrolledError):
    """The server ends before the work is done."""

    def __init__(self) -> None:
        super().__init__("the server is being shut down; send the request again, to it or to another.")


class EngineThread(threading.Thread, ABC):
    """A thread with a box of jobs. flush: sends what was said; it is called after a turn, though no more often than
    every :data:`_FLUSH` seconds while there is more to do."""

    def __init__(self, name: str, flush: Callable[[], None]):
        super().__init__(name=name, daemon=True)
        self._box: deque[Job] = deque()
        self._bell = threading.Condition()
        self._ended, self._flush = False, flush
        self.reason: str | None = None
        self.busy = 0.0  # seconds of work so far

    def put(self, job: Job) -> None:
        """Give it a job."""
        with self._bell:
            self._box.append(job)
            self._bell.notify()

    def shut(self, reason: str | None) -> None:
        """End: texts with ``reason`` and their states, the rest with a :class:`ShutDownError`."""
        with self._bell:
            self.reason, self._ended = reason, True
            self._bell.notify()

    def run(self) -> None:
        """Turn after turn, until :meth:`shut`."""
        torch.set_num_threads(1)
        flushed = 0.0
        while True:
            with self._bell:
                while not (self._box or self.has_work() or self._ended):
                    self._bell.wait()
                new, ended = list(self._box), self._ended
                self._box.clear()
            began = time.perf_counter()
            for job in new:
                self.admit(job)
            if ended:
                self.give_up()
                self._flush()
                return
            try:
                self.turn()
            except Exception as error:  # a fault of ours: who waits is told, and the others are served
                self.abandon(error)
            now = time.perf_counter()
            self.busy += now - began
            if now - flushed > _FLUSH or not self.has_work():
                self._flush()
                flushed = now

    @abstractmethod
    def has_work(self) -> bool:
        """Whether there is anything to do without another job."""

    @abstractmethod
    def admit(self, job: Job) -> None:
        """Take a job."""

    @abstractmethod
    def turn(self) -> None:
        """Do a little of everything."""

    @abstractmethod
    def give_up(self) -> None:
        """End all jobs, since the server ends."""

    @abstractmethod
    def abandon(self, error: Exception) -> None:
        """End all jobs with an error."""


def fail(jobs: Iterable[Job], error: Exception) -> None:
    """End jobs, each once, with an error."""
    for job in dict.fromkeys(jobs):
        job.cancelled = True
        job.hear(Failed(error))
