"""The threads that read prompts and write texts."""

import time
from collections import deque
from collections.abc import Callable

import torch

from unrolled.core.tree import map_tree, repeat_rows, select_rows
from unrolled.serve.engine.batch import MOST_ROWS, Batch, Row, likeliest
from unrolled.serve.engine.jobs import Completion, Ended, Job, Probed, Reading, Told, TookTooLongError
from unrolled.serve.engine.served import Served
from unrolled.serve.engine.threads import EngineThread, ShutDownError, fail

__all__ = ["Worker"]

# Tokens of a prompt that are read at once, prompts that are read side by side, log-probabilities held at once.
_CHUNK, _BESIDE, _HELD = 128, 8, 1 << 21
# Seconds of reading between two steps of writing where nobody writes; seconds of a turn in which texts go on smoothly.
_ALONE, _SMOOTH = 0.05, 0.03


class Worker(EngineThread):
    """Reads prompts and writes texts.

    A turn is one step of every text, then reading for half of the time that took, so that texts go on evenly whatever
    is read beside them; for up to twice that time, so that new texts begin early, where the turn is short all the same.

    Args:
        number: which of the threads; it has the predictors of that number.
    """

    def __init__(self, number: int, flush: Callable[[], None]):
        super().__init__(f"engine-{number}", flush)
        self._number = number
        self._reading: dict[Served, deque[Reading]] = {}
        self._batches: dict[Served, list[Batch]] = {}
        self._per_token: dict[Served, float] = {}
        self.written, self.read = 0, 0
        self.steps_of = [0] * (MOST_ROWS + 1)  # how often so many texts stepped together

    def has_work(self) -> bool:
        """See :class:`EngineThread`."""
        return any(self._reading.values()) or any(self._batches.values())

    def admit(self, job: Job) -> None:
        """See :class:`EngineThread`."""
        assert isinstance(job, Reading)
        self._reading.setdefault(job.served, deque()).append(job)

    def turn(self) -> None:
        """See :class:`EngineThread`."""
        began = time.perf_counter()
        wrote = 0
        for served, batches in self._batches.items():
            wrote += self._write(served, batches)
        spent = time.perf_counter() - began
        self.written += wrote
        reading = max(spent / 2, min(_SMOOTH - spent, 2 * spent)) if wrote else _ALONE
        end = time.perf_counter() + reading
        while any(self._reading.values()):
            for served, waiting in self._reading.items():
                if waiting:
                    self._read(served, waiting, end - time.perf_counter())
            if time.perf_counter() >= end:
                break

    def _write(self, served: Served, batches: list[Batch]) -> int:
        wrote = 0
        now = time.monotonic()
        with served.lock:
            for batch in list(batches):
                batch.end(now, None)
                try:
                    count = batch.step()
                except Exception as error:  # of one batch: the others, and the server, go on
                    fail([row.job for row in batch.rows], error)
                    batch.rows, batch.state, count = [], None, 0
                self.steps_of[count] += 1
                wrote += count
        batches[:] = _joined([batch for batch in batches if batch.rows])
        return wrote

    def _read(self, served: Served, waiting: deque[Reading], seconds: float) -> None:
        """Read a chunk of the prompts that came first."""
        now = time.monotonic()
        chosen = [waiting[place] for place in range(min(_BESIDE, len(waiting)))]
        for job in chosen:
            if job.cancelled or now > job.deadline:
                waiting.remove(job)
                if not job.cancelled:
                    fail([job], TookTooLongError())
        chosen = [job for job in chosen if job in waiting]
        if chosen and chosen[0].measure is not None:
            chosen = chosen[:1]
        chosen = [job for job in chosen if (job.measure is None) == (chosen[0].measure is None)]
        if not chosen:
            return
        try:
            with served.lock:
                self._chunk(served, chosen, seconds)
        except Exception as error:
            fail(chosen, error)
            for job in chosen:
                waiting.remove(job)
            return
        for job in chosen:
            if job.done == len(job.ids):
                waiting.remove(job)
                self._finish(served, job)

    def _chunk(self, served: Served, jobs: list[Reading], seconds: float) -> None:
        predictor = served.writers[self._number]
        for job in jobs:
            if job.state is None:
                job.state = predictor.own_form(job.before.tree)
        steps = min(len(job.ids) - job.done for job in jobs)
        each = self._per_token.get(served, 0.0)
        allowed = int(seconds / (each * len(jobs))) if each else _CHUNK
        steps = min(steps, max(8, min(_CHUNK, allowed)))
        first = jobs[0]
        if first.measure is not None:
            steps = max(1, min(steps, _HELD // served.tokenizer.vocab_size))
        if not steps:
            return
        ids = torch.tensor([job.ids[job.done : job.done + steps] for job in jobs], dtype=torch.int64)
        began = time.perf_counter()
        state = map_tree(lambda *parts: torch.cat(parts), *(job.state for job in jobs))
        if first.measure is None:
            state = predictor.consume(state, ids)
        else:
            log_prob, state = predictor.distributions(state, ids)
            own = log_prob[0].gather(1, ids[0].unsqueeze(1)).squeeze(1).tolist()
            tops = [likeliest(one, first.measure) if first.measure else () for one in log_prob[0]]
            first.hear(Told([Probed(*one) for one in zip(ids[0].tolist(), own, tops, strict=True)]))
        for index, job in enumerate(jobs):
            job.state = state if len(jobs) == 1 else select_rows(state, torch.tensor([index]))
            job.done += steps
        self.read += ids.numel()
        took = (time.perf_counter() - began) / ids.numel()
        self._per_token[served] = took if not each else 0.8 * each + 0.2 * took

    def _finish(self, served: Served, job: Reading) -> None:
        """A prompt has been read."""
        if isinstance(job, Completion):
            state = repeat_rows(job.state, job.samples) if job.samples > 1 else job.state
            rows = [Row(job, sample, job.after()) for sample in range(job.samples)]
            batches = self._batches.setdefault(served, [])
            while rows:
                batch = next((one for one in batches if len(one.rows) < MOST_ROWS), None)
                if batch is None:
                    batch = Batch(served.writers[self._number])
                    batches.append(batch)
                room = MOST_ROWS - len(batch.rows)
                batch.add(rows[:room], map_tree(lambda value, room=room: value[:room], state))
                rows, state = rows[room:], map_tree(lambda value, room=room: value[room:], state)
            job.state = None
            return
        tree = served.writers[self._number].shared_form(job.state)
        job.hear(Ended(job.after()._replace(tree=map_tree(lambda value: value.clone(), tree), issued=time.time())))

    def give_up(self) -> None:
        """See :class:`EngineThread`."""
        for waiting in self._reading.values():
            fail(waiting, ShutDownError())
        for batches in self._batches.values():
            for batch in batches:
                batch.end(time.monotonic(), self.reason or "shutdown")

    def abandon(self, error: Exception) -> None:
        """See :class:`EngineThread`."""
        batches = [batch for each in self._batches.values() for batch in each]
        fail([row.job for batch in batches for row in batch.rows], error)
        fail([job for waiting in self._reading.values() for job in waiting], error)
        self._batches, self._reading = {}, {}


def _joined(batches: list[Batch]) -> list[Batch]:
    """Fewer batches where their rows fit into one."""
    batches.sort(key=lambda batch: len(batch.rows))
    while len(batches) > 1 and len(batches[0].rows) + len(batches[1].rows) <= MOST_ROWS:
        first = batches.pop(0)
        batches[0].take(first)
        batches.sort(key=lambda batch: len(batch.rows))
    return batches
