"""The engine as the event loop sees it: jobs go in, events come out, and no more is taken on than there is room for."""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.registry import unknown_name
from unrolled.serve.engine.jobs import Ended, Event, Failed, Job, Reading, ScoreJob, Wrote
from unrolled.serve.engine.scorer import Scorer
from unrolled.serve.engine.served import Served
from unrolled.serve.engine.threads import ShutDownError
from unrolled.serve.engine.worker import Worker

__all__ = ["BusyError", "Engine", "Ticket"]


class BusyError(UnrolledError):
    """There is no room for another request. seconds: after which there may be."""

    def __init__(self, seconds: int):
        super().__init__(f"the server is busy; ask again in {seconds} seconds.")
        self.seconds = seconds


class Ticket:
    """A job under way, for the one who waits for it; used in the event loop alone."""

    def __init__(self, engine: "Engine", job: Job):
        self.job, self._engine = job, engine
        self._events: deque[Event] = deque()
        self._bell = asyncio.Event()
        self.begun = time.monotonic()
        self.worker: Worker | Scorer | None = None  # None while it waits
        self.left, self.done = job.weight, False

    async def events(self, apart: float = 0.0) -> AsyncGenerator[list[Event], None]:
        """What comes, as much at a time as there is. apart: seconds that lie between two times at least, so that what
        comes faster comes together, and what comes slowly at once.

        Raises what the job failed with.
        """
        last = 0.0
        try:
            while True:
                await self._bell.wait()
                wait = last + apart - time.monotonic()
                if wait > 0 and not self.done:
                    await asyncio.sleep(wait)
                last = time.monotonic()
                found = list(self._events)
                self._events.clear()
                if not self.done:
                    self._bell.clear()
                failed = found[-1] if found and isinstance(found[-1], Failed) else None
                found = found[:-1] if failed else found
                if found:
                    yield found
                if failed:
                    raise failed.error
                if self.done and not self._events:
                    return
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        if not self.done:
            self.done = True
            self.job.cancelled = True
            self._engine._left(self)

    def hear(self, event: Event) -> None:
        """Something has come."""
        if self.done:
            return
        self._events.append(event)
        self._bell.set()
        if isinstance(event, Wrote):
            self.left -= event.reason is not None
        if isinstance(event, Failed | Ended) or (isinstance(event, Wrote) and not self.left):
            self.done = True
            self._engine._left(self)


class Engine:
    """Takes jobs in their order, and gives each to the thread that has least to do.

    Args:
        models: what is served. threads: that write. streams: texts written at once; queue: jobs that wait beyond.
    """

    def __init__(self, models: Sequence[Served], threads: int = 2, streams: int = 512, queue: int = 256):
        self.models = {one.name: one for one in models}
        self.streams, self.queue = streams, queue
        self._outboxes: dict[int, list[tuple[Ticket, Event]]] = {}
        self.workers = [Worker(number, self._flusher(number)) for number in range(threads)]
        self.scorer = Scorer(self._flusher(-1))
        self._waiting: deque[Ticket] = deque()
        self._running: set[Ticket] = set()
        self._loads: dict[Worker | Scorer, int] = dict.fromkeys([*self.workers, self.scorer], 0)
        self._seconds = 1.0  # a job takes, on average
        self.draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def used(self) -> int:
        """Texts under way."""
        return sum(self._loads.values())

    @property
    def waiting(self) -> int:
        """Requests that wait for a place."""
        return len(self._waiting)

    @property
    def ready(self) -> bool:
        """Whether another request is taken."""
        return not self.draining and (self.used < self.streams or self.waiting < self.queue)

    def model(self, name: str | None) -> Served:
        """The model of a name or an id; the only one where no name is given. Raises UsageError for others."""
        if name is None and len(self.models) == 1:
            return next(iter(self.models.values()))
        if name is None:
            raise UsageError(f"say which model: {', '.join(self.models)}.")
        for one in self.models.values():
            # of an id the checksum says which model it is; the folder may have another name elsewhere
            if name in (one.name, one.id) or ("@" in name and name.rpartition("@")[2] == one.id.rpartition("@")[2]):
                return one
        raise unknown_name("model", name, self.models)

    def start(self) -> None:
        """Begin to work, in a running event loop."""
        self._loop = asyncio.get_running_loop()
        for thread in self._loads:
            thread.start()

    def submit(self, job: Job) -> Ticket:
        """Take a job on.

        Raises:
            UsageError: it is more than is ever taken on. BusyError: there is no room. ShutDownError: the server ends.
        """
        if self.draining:
            raise ShutDownError
        if job.weight > self.streams:
            raise UsageError(f"no more than {self.streams} texts are written at once; ask for fewer.")
        ticket = Ticket(self, job)
        if self._waiting or self.used + job.weight > self.streams:
            if len(self._waiting) >= self.queue:
                raise BusyError(max(1, math.ceil(self._seconds * (1 + self.waiting) / self.streams)))
            self._waiting.append(ticket)
        else:
            self._place(ticket)
        self._idle.clear()
        return ticket

    def _place(self, ticket: Ticket) -> None:
        worker = self.scorer if isinstance(ticket.job, ScoreJob) else min(self.workers, key=self._loads.__getitem__)
        outbox = self._outboxes[-1 if isinstance(worker, Scorer) else self.workers.index(worker)]
        ticket.job.hear = lambda event: outbox.append((ticket, event))
        ticket.worker = worker
        self._loads[worker] += ticket.job.weight
        self._running.add(ticket)
        assert isinstance(ticket.job, Reading | ScoreJob)
        worker.put(ticket.job)

    def _left(self, ticket: Ticket) -> None:
        """A job is done, or nobody waits for it."""
        if ticket.worker is None:
            self._waiting.remove(ticket)
        else:
            self._loads[ticket.worker] -= ticket.job.weight
            self._running.discard(ticket)
            self._seconds += 0.1 * (time.monotonic() - ticket.begun - self._seconds)
        while self._waiting and not self.draining and self.used + self._waiting[0].job.weight <= self.streams:
            self._place(self._waiting.popleft())
        if not self._running and not self._waiting:
            self._idle.set()

    def _flusher(self, number: int) -> Callable[[], None]:
        outbox = self._outboxes.setdefault(number, [])

        def flush() -> None:
            if outbox:
                sent = outbox[:]
                outbox.clear()
                try:
                    self._loop.call_soon_threadsafe(self._deliver, sent)
                except RuntimeError:  # the loop has ended, and with it whoever waited
                    return

        return flush

    @staticmethod
    def _deliver(sent: list[tuple[Ticket, Event]]) -> None:
        for ticket, event in sent:
            ticket.hear(event)

    async def drain(self, seconds: float) -> None:
        """Take nothing more on, let the texts go on for so long, then end each with the reason ``shutdown`` and its
        state."""
        self.draining = True
        for ticket in list(self._waiting):
            ticket.hear(Failed(ShutDownError()))
        if seconds:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)
        self.stop()
        await self._idle.wait()

    def stop(self) -> None:
        """End the threads."""
        for thread in self._loads:
            thread.shut("shutdown")
