"""The jobs of a comparison: what there is to do follows from the registered plan and from the results so far, and from
nothing else, so that any number of workers agree on it without a word."""

import hashlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from unrolled.compare.lock import Lock, Locked
from unrolled.compare.resolve import with_value
from unrolled.compare.result_file import is_sound
from unrolled.compare.sealed import canonical
from unrolled.compare.search import Choice, Tried, Value, at_edge, best_of, beyond, number
from unrolled.core.errors import UnrolledError
from unrolled.core.files import read_json
from unrolled.train import ExperimentConfig

__all__ = ["RESULTS", "Board", "Job"]

RESULTS = "results"
_MOST_EXTENSIONS = 2
_LONGEST = 60
_UNSAFE = re.compile(r"[^A-Za-z0-9._+=-]+")


class Job(NamedTuple):
    """Something to do once.

    Attributes:
        id: a readable name that is a file's too, with a digest of everything that decides the result. tokens: that a
            run reads. value: of the searched setting.
    """

    id: str
    kind: Literal["time", "search", "run"]
    corpus: str
    system: str = ""
    seed: int = 0
    value: Value | None = None
    tokens: int = 0
    setting: str | None = None

    def experiment(self, locked: Locked) -> ExperimentConfig:
        """The whole configuration of its run."""
        return ExperimentConfig.parse(_experiment(self.kind, locked, self.seed, self.value, self.tokens, self.setting))


def _experiment(
    kind: str, locked: Locked, seed: int, value: Value | None, tokens: int, setting: str | None
) -> dict[str, Any]:
    config = locked.config if setting is None or value is None else with_value(locked.config, setting, value)
    steps = locked.search_steps if kind == "search" else locked.steps
    budget = {"steps": None, "tokens": tokens} if steps is None else {"steps": steps, "tokens": None}
    return {**config, "train": {**config["train"], **budget}, "seed": seed}


def _slug(name: str) -> str:
    """As a part of a file's name may be; of a long one its end, since names of files have some 250 signs."""
    return _UNSAFE.sub("-", name)[-_LONGEST:].strip("-.") or "x"


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()[:8]


class Board:
    """What there is to do in a comparison's folder, and what is done.

    Args:
        lock: the registered plan.
    """

    def __init__(self, lock: Lock):
        self.lock, self.folder = lock, lock.folder
        self._results: dict[str, dict[str, Any]] = {}

    # -- results ---------------------------------------------------------------------------------------------

    def path(self, job: Job) -> Path:
        """Where a job's result is."""
        return self.folder / RESULTS / f"{job.id}.json"

    def result(self, job: Job) -> dict[str, Any] | None:
        """A job's result; None while there is none. Raises UnrolledError for a damaged one."""
        if job.id not in self._results:
            path = self.path(job)
            if not path.exists():
                return None
            value = read_json(path)
            if not self.sound(job, value):
                raise UnrolledError(f"{path} is no result of this job: it is damaged; delete it, and run it again.")
            self._results[job.id] = value
        return self._results[job.id]

    def sound(self, job: Job, value: Any) -> bool:
        """Whether something read from a file is a job's result."""
        systems = {one.system for one in self.lock.systems if one.corpus == job.corpus}
        return is_sound(value, job.kind, systems) and value.get("id") == job.id

    def done(self, job: Job) -> bool:
        """Whether a job has its result."""
        return self.result(job) is not None

    def same(self, job: Job, other: "Board") -> str | None:
        """The name that a job of another board has here; None where it is not to be done here to the last setting."""
        if job.kind == "time":
            mine = self.timing_job(job.corpus)
            return mine.id if mine is not None and self._timed(job.corpus) == other._timed(job.corpus) else None
        locked, theirs = self.lock.find(job.system, job.corpus), other.locked(job)
        if locked is None or locked.text != theirs.text:
            return None
        mine = self._job(job.kind, locked, job.seed, job.value, job.tokens, job.setting)
        return mine.id if mine.experiment(locked) == job.experiment(theirs) else None

    # -- timing ----------------------------------------------------------------------------------------------

    def timing_job(self, corpus: str) -> Job | None:
        """The job that times the systems on a corpus; None where the plan's budget needs none."""
        match = self.lock.plan.match
        if match.budget.cpu_seconds is None and match.reference is None:
            return None
        configs = [one.config for one in self.lock.systems if one.corpus == corpus]
        return Job(f"time.{_slug(corpus)}.{_digest(configs)}", "time", corpus)

    def _timed(self, corpus: str) -> list[tuple[str, ExperimentConfig]]:
        return [(one.system, one.experiment()) for one in self.lock.systems if one.corpus == corpus]

    def tokens(self, locked: Locked) -> int | None:
        """Of a full run; None while they are not timed."""
        if locked.tokens is not None:
            return locked.tokens
        job, match = self.timing_job(locked.corpus), self.lock.plan.match
        found = None if job is None else self.result(job)
        if found is None:
            return None
        seconds = found["seconds_per_token"]
        if match.reference is not None:
            assert match.budget.tokens is not None
            if locked.system == match.reference:  # exactly, whatever rounding makes of the quotient
                return match.budget.tokens
            total = match.budget.tokens * seconds[match.reference]
        else:
            assert match.budget.cpu_seconds is not None
            total = match.budget.cpu_seconds
        return max(locked.tokens_per_step, int(total / seconds[locked.system]))

    # -- search ----------------------------------------------------------------------------------------------

    def search_jobs(self, locked: Locked, value: Value) -> list[Job]:
        """The runs of a searched value."""
        search = self.lock.plan.search
        assert search is not None
        assert locked.search_tokens is not None
        return [self._job("search", locked, seed, value, locked.search_tokens, search.setting) for seed in search.seeds]

    def _job(
        self, kind: Literal["search", "run"], locked: Locked, seed: int, value: Value | None, tokens: int,
        setting: str | None,
    ) -> Job:  # fmt: skip
        digest = _digest([kind, _experiment(kind, locked, seed, value, tokens, setting)])
        tried = f".{_slug(str(value))}" if kind == "search" else ""
        name = f"{kind}.{_slug(locked.system)}.{_slug(locked.corpus)}{tried}.s{seed}.{digest}"
        return Job(name, kind, locked.corpus, locked.system, seed, value, tokens, setting)

    def tried(self, locked: Locked) -> tuple[list[Tried], list[Value]]:
        """The values whose runs are done, and those that are wanted and not done yet."""
        search = self.lock.plan.search
        assert search is not None
        wanted, done, added = list(self.lock.plan.values_of(locked.system)), [], 0
        given = set(wanted)
        while True:
            done = [self._mean(locked, value, value not in given) for value in wanted]
            missing = [value for value, found in zip(wanted, done, strict=True) if found is None]
            finished = [found for found in done if found is not None]
            if missing or search.edge != "extend" or added == _MOST_EXTENSIONS:
                return finished, missing
            best = best_of(finished)
            if best is None or (further := beyond(wanted, best.value)) is None:
                return finished, []
            wanted.append(further)
            added += 1

    def _mean(self, locked: Locked, value: Value, added: bool) -> Tried | None:
        found = [self.result(job) for job in self.search_jobs(locked, value)]
        if any(one is None for one in found):
            return None
        nats = [math.inf if one["status"] == "diverged" else one["nats_per_token"] for one in found if one is not None]
        return Tried(value, sum(nats) / len(nats), added)

    def choice(self, locked: Locked) -> Choice | None:
        """What the search chose for a system; None while it is not done. A value with which a full run diverged is set
        aside with all its runs, and the next smaller one that did not diverge in the search is taken; the runs of
        earlier seeds are waited for, so that it is the same however many workers there are."""
        search = self.lock.plan.search
        if search is None:
            return Choice(None)
        tried, missing = self.tried(locked)
        if missing:
            return None
        best = best_of(tried)
        if best is None:
            reason = (
                f"system {locked.system!r} diverged with every {search.setting} that was tried "
                f"({', '.join(str(one.value) for one in tried)}); give it other values."
            )
            return Choice(None, tuple(tried), refused=reason)
        edge = at_edge([one.value for one in tried], best.value)
        if edge and search.edge == "refuse":
            reason = (
                f"the best {search.setting} of system {locked.system!r} is {best.value}, at the edge of what was "
                'tried; give it more values, or say search.edge = "extend".'
            )
            return Choice(best.value, tuple(tried), True, refused=reason)
        value, aside = best.value, []
        while self._lost(locked, value):
            smaller = [
                one.value for one in tried if math.isfinite(one.nats_per_token) and number(one.value) < number(value)
            ]
            if not smaller:
                break
            aside.append(value)
            value = max(smaller, key=number)
        return Choice(value, tuple(tried), edge, tuple(aside))

    def _lost(self, locked: Locked, value: Value) -> list[Job]:
        """The full runs with a value up to the first one that diverged, in the order of the seeds; empty where none
        did. Later ones do not count: which of them were made depends on how many workers there were."""
        jobs = self.run_jobs(locked, value)
        for count, job in enumerate(jobs, 1):
            result = self.result(job)
            if result is None:
                break
            if result["status"] == "diverged":
                return jobs[:count]
        return []

    def set_aside(self, locked: Locked | None = None) -> list[Job]:
        """The full runs, of one system or of all, by which values that a search had chosen were set aside."""
        found = []
        for one in self.lock.systems if locked is None else (locked,):
            choice = self.choice(one)
            found += [job for value in (choice.set_aside if choice else ()) for job in self._lost(one, value)]
        return found

    # -- full runs -------------------------------------------------------------------------------------------

    def run_jobs(self, locked: Locked, value: Value | None) -> list[Job]:
        """The full runs of a system with a value; empty while the tokens are not known."""
        tokens, search = self.tokens(locked), self.lock.plan.search
        if tokens is None:
            return []
        setting = None if search is None else search.setting
        return [self._job("run", locked, seed, value, tokens, setting) for seed in self.lock.plan.seeds]

    # -- what is to be done ----------------------------------------------------------------------------------

    def todo(self) -> list[Job]:
        """The jobs that could be done now, in the order in which they should be: timing; the search, the largest
        systems first; the full runs seed by seed over all systems, so that an early end leaves a balanced table."""
        return [job for job in self._known() if not self.done(job)]

    def _known(self) -> Iterator[Job]:
        for corpus in self.lock.corpora:
            job = self.timing_job(corpus)
            if job is not None:
                yield job
        largest = sorted(self.lock.systems, key=lambda one: -one.flops_per_token)
        if self.lock.plan.search is not None:
            for locked in largest:
                tried, missing = self.tried(locked)
                for value in (*(one.value for one in tried), *missing):
                    yield from self.search_jobs(locked, value)
        rows = []
        for locked in self.lock.systems:
            choice = self.choice(locked)
            if choice is not None and choice.refused is None:
                rows.append(self.run_jobs(locked, choice.value))
        for jobs in zip(*(row for row in rows if row), strict=True):
            yield from jobs

    def known(self) -> list[Job]:
        """Every job that is known so far, done or not."""
        return list(self._known())

    def expected(self) -> int:
        """Number of jobs of the whole comparison, as far as can be told: extensions of searches come on top."""
        plan, known = self.lock.plan, self.known()
        runs = len(self.lock.systems) * len(plan.seeds)
        return sum(job.kind != "run" for job in known) + max(runs, sum(job.kind == "run" for job in known))

    def refusals(self) -> list[str]:
        """Sentences about systems that cannot go on."""
        return [choice.refused for one in self.lock.systems if (choice := self.choice(one)) and choice.refused]

    def locked(self, job: Job) -> Locked:
        """The system of a job."""
        return self.lock.locked(job.system, job.corpus)
