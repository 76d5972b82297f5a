"""The jobs of a comparison: what there is to do follows from the registered plan and from the results so far, and from
nothing else, so that any number of workers agree on it without a word."""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from unrolled.compare.lock import Lock, Locked
from unrolled.compare.resolve import with_value
from unrolled.compare.sealed import canonical
from unrolled.compare.search import Choice, Tried, Value, at_edge, best_of, beyond, number
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import atomic_write, make_folder, parse_json, read_bounded, read_json, write_json
from unrolled.train import ExperimentConfig

__all__ = ["PACKED", "RESULTS", "Board", "Job", "pack", "take_over"]

RESULTS, PACKED = "results", "results.jsonl"
RESULT_KIND, RESULT_VERSION = "unrolled job result", 1
_MOST_EXTENSIONS = 2
_MOST_PACKED = 1 << 30
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
    return _UNSAFE.sub("-", name).strip("-.") or "x"


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
            if not isinstance(value, dict) or (value.get("kind"), value.get("id")) != (RESULT_KIND, job.id):
                raise UnrolledError(f"{path} is no result of this job: it is damaged; delete it, and run it again.")
            self._results[job.id] = value
        return self._results[job.id]

    def done(self, job: Job) -> bool:
        """Whether a job has its result."""
        return self.result(job) is not None

    # -- timing ----------------------------------------------------------------------------------------------

    def timing_job(self, corpus: str) -> Job | None:
        """The job that times the systems on a corpus; None where the plan's budget needs none."""
        match = self.lock.plan.match
        if match.budget.cpu_seconds is None and match.reference is None:
            return None
        configs = [one.config for one in self.lock.systems if one.corpus == corpus]
        return Job(f"time.{_slug(corpus)}.{_digest(configs)}", "time", corpus)

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
        aside with all its runs, and the next smaller one that did not diverge in the search is taken."""
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
        while any((self.result(job) or {}).get("status") == "diverged" for job in self.run_jobs(locked, value)):
            smaller = [
                one.value for one in tried if math.isfinite(one.nats_per_token) and number(one.value) < number(value)
            ]
            if not smaller:
                break
            aside.append(value)
            value = max(smaller, key=number)
        return Choice(value, tuple(tried), edge, tuple(aside))

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
        choices = [self.choice(one) for one in self.lock.systems]
        return [choice.refused for choice in choices if choice is not None and choice.refused is not None]

    def locked(self, job: Job) -> Locked:
        """The system of a job."""
        return self.lock.locked(job.system, job.corpus)


def pack(board: Board, folder: Path) -> None:
    """Write every result so far into one file of lines of JSON, by which others can go on: see :func:`take_over`."""
    results = sorted((job.id, result) for job in board.known() if (result := board.result(job)) is not None)
    lines = [json.dumps(result, sort_keys=True, allow_nan=False) + "\n" for _, result in results]
    atomic_write(folder / PACKED, "".join(lines))


def take_over(board: Board, other: Path) -> int:
    """Copy the results of another comparison whose jobs are the same here, to the last setting.

    Args:
        other: its folder, or the file that :func:`pack` wrote.
    Returns:
        how many there were.
    """
    known = _packed(other) if other.is_file() else _unpacked(other)
    make_folder(board.folder / RESULTS)
    taken = 0
    while missing := [job for job in board.todo() if job.id in known]:  # those of a search make further jobs known
        for job in missing:
            write_json(board.path(job), known[job.id])
        taken += len(missing)
    return taken


def _packed(path: Path) -> dict[str, Any]:
    try:
        values = [parse_json(line) for line in read_bounded(path, _MOST_PACKED).splitlines()]
        return {value["id"]: value for value in values if value["kind"] == RESULT_KIND}
    except (ValueError, KeyError, TypeError) as error:
        raise UnrolledError(f"{path} does not hold the results of a comparison: it is damaged.") from error


def _unpacked(folder: Path) -> dict[str, Any]:
    if not (folder / RESULTS).is_dir():
        raise UsageError(f"{folder} holds no results of a comparison; name its folder, or its {PACKED}.")
    return {path.stem: read_json(path) for path in sorted((folder / RESULTS).glob("*.json"))}
