"""What there is to do in a study, and what is done: it follows from files alone, whatever the sampler remembers."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.compare.running import record_of
from unrolled.compare.tune.forms import KIND, TRIAL_KIND, VERSION, sound_result, sound_trial
from unrolled.compare.tune.halving import Rungs
from unrolled.compare.tune.lock import Study
from unrolled.compare.tune.settings import Settings
from unrolled.core.errors import UnrolledError
from unrolled.core.files import make_folder, read_json, write_json
from unrolled.train import ExperimentConfig

__all__ = ["Board", "Job", "Limit", "Trial"]

TRIALS, RESULTS, RUNS = "trials", "results", "runs"
_SCORE = 2.0
"""What a token costs in the final score, in one column, to one of training: 1.7 to 2 of ptb-char-cpu, measured."""


def _seconds(result: dict[str, Any]) -> float:
    """CPU seconds of training, and of scoring where that was done."""
    return result.get("cpu_seconds", 0.0) + result.get("score_seconds", 0.0)


class Limit(NamedTuple):
    """How long a study goes on: trials in all, or CPU hours in all, those of the confirmation among them."""

    trials: int | None = None
    cpu_hours: float | None = None


class Trial(NamedTuple):
    """A trial that was given its settings."""

    number: int
    settings: Settings


class Job(NamedTuple):
    """Something to do once: time the recipe, ask for a trial, run a trial, or run one with a new seed."""

    id: str
    kind: str
    number: int = 0
    seed: int = 0


class Board:
    """The files of a study.

    Args:
        study: that has begun.
    """

    def __init__(self, study: Study):
        self.study, self.folder = study, study.folder
        self.rungs = Rungs(study.folder, study.checks, study.space.keep)
        self._trials: dict[int, Trial] = {}
        self._results: dict[str, dict[str, Any]] = {}

    # -- trials ----------------------------------------------------------------------------------------------

    def trials(self) -> dict[int, Trial]:
        """Number -> every trial that was given its settings."""
        for path in sorted((self.folder / TRIALS).glob("*.json")):
            if path.stem.isdigit() and int(path.stem) not in self._trials:
                value = read_json(path)
                if not sound_trial(value, int(path.stem)) or not self._searched(value["settings"]):
                    raise UnrolledError(f"{path} is no trial: it is damaged; bring the old one back.")
                self._trials[value["number"]] = Trial(value["number"], value["settings"])
        return dict(sorted(self._trials.items()))

    def _searched(self, settings: Settings) -> bool:
        """Whether all of these may be given to a trial."""
        space = self.study.space.space
        return all(name in space and space[name].holds(value) for name, value in settings.items())

    def add(self, trial: Trial) -> None:
        """Write down what a trial is given."""
        make_folder(self.folder / TRIALS)
        write_json(self.folder / TRIALS / f"{trial.number:04d}.json", {"kind": TRIAL_KIND, **trial._asdict()})

    def run_folder(self, job: Job) -> Path:
        """The run directory of a job."""
        return self.folder / RUNS / job.id

    def experiment(self, job: Job) -> ExperimentConfig:
        """The whole configuration of a job's run. Raises UsageError for settings that go together with none."""
        return self.study.experiment(self.trials()[job.number].settings, job.seed, self.seconds_per_token())

    # -- results ---------------------------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        return self.folder / RESULTS / f"{name}.json"

    def result(self, name: str) -> dict[str, Any] | None:
        """A job's result by its name; None while there is none. Raises UnrolledError for a damaged one."""
        if name not in self._results:
            path = self._path(name)
            if not path.exists():
                return None
            value = read_json(path)
            if not sound_result(value, name):
                raise UnrolledError(f"{path} is no result of this job: it is damaged; delete it, and run it again.")
            self._results[name] = value
        return self._results[name]

    def write(self, job: Job, value: dict[str, Any]) -> dict[str, Any]:
        """Write a job's result; returns it whole."""
        make_folder(self.folder / RESULTS)
        value = {"kind": KIND, "version": VERSION, "id": job.id, "job": job.kind, **value}
        write_json(self._path(job.id), value)
        return value

    def seconds_per_token(self) -> float | None:
        """CPU seconds of the recipe, where the timing job is done."""
        timed = self.result("time")
        return None if timed is None else timed["seconds_per_token"]["recipe"]

    def results(self) -> dict[int, dict[str, Any]]:
        """Number -> result of every trial that is done."""
        found = {number: self.result(self.trial_job(number).id) for number in self.trials()}
        return {number: result for number, result in found.items() if result is not None}

    # -- jobs ------------------------------------------------------------------------------------------------

    def trial_job(self, number: int) -> Job:
        """The job that runs a trial."""
        return Job(f"trial.{number:04d}", "trial", number, self.study.space.seed)

    def leaders(self) -> list[int]:
        """Numbers of the best trials so far, as many as are confirmed, the best first."""
        done = [
            (result["value"], number) for number, result in self.results().items() if result["status"] == "finished"
        ]
        return [number for _, number in sorted(done)[: self.study.space.confirm.best]]

    def confirm_jobs(self) -> list[Job]:
        """The runs that confirm the best trials so far, seed by seed."""
        return [
            Job(f"confirm.{number:04d}.s{seed}", "confirm", number, seed)
            for seed in self.study.space.confirm.seeds
            for number in self.leaders()
        ]

    def todo(self, limit: Limit, parked: Collection[str] = ()) -> list[Job]:
        """The jobs that could be done now, in the order in which they should be.

        Args:
            parked: names of jobs that failed too often; what can be done without them is.
        """
        if self.study.space.trial.cpu_seconds is not None and self.result("time") is None:
            return [Job("time", "time")]
        done = self.results()
        jobs = [
            job for number in self.trials() if number not in done and (job := self.trial_job(number)).id not in parked
        ]
        if "ask" not in parked and self.more(limit, parked):
            jobs.append(Job("ask", "ask"))
        return jobs or [job for job in self.confirm_jobs() if self.result(job.id) is None]

    def more(self, limit: Limit, parked: Collection[str] = ()) -> bool:
        """Whether a further trial is wanted."""
        trials, done = self.trials(), self.results()
        if limit.trials is not None and len(trials) >= limit.trials:
            return False
        if limit.cpu_hours is None:
            return True
        costs = [result["cpu_seconds"] for result in done.values()]
        whole = [result for result in done.values() if result["status"] == "finished"]
        names = [path.stem for path in (self.folder / RESULTS).glob("confirm.*.json")]
        spent = sum(costs) + sum(_seconds(result) for name in names if (result := self.result(name)) is not None)
        if not whole:  # what a trial costs is not known yet
            return spent < 3600 * limit.cpu_hours
        waiting = sum(self.trial_job(n).id not in parked for n in trials if n not in done)
        run = sum(result["cpu_seconds"] for result in whole) / len(whole)
        token = run / max(1, sum(result["tokens"] for result in whole) / len(whole))
        score = _SCORE * token * self.study.text.validation_tokens
        # all of it anew, although some may be confirmed: the next trial may be better than these
        confirm = self.study.space.confirm.best * len(self.study.space.confirm.seeds) * (run + score)
        return spent + (waiting + 1) * sum(costs) / len(costs) + confirm <= 3600 * limit.cpu_hours

    def cpu_seconds(self) -> float:
        """CPU seconds of all runs that are done, or under way as far as they are saved."""
        names = [self.trial_job(number).id for number in self.trials()]
        names += [path.stem for path in (self.folder / RESULTS).glob("confirm.*.json")]
        total = 0.0
        for name in names:
            result = self.result(name)
            record = record_of(self.folder / RUNS / name) if result is None else result
            total += _seconds(record)
        return total

    def complete(self, limit: Limit) -> bool:
        """Whether all is done."""
        return not self.todo(limit)
