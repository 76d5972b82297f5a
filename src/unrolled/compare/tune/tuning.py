"""A study as an object: its trials, and what it came to."""

import math
import os
import statistics
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.compare.tune.board import Board, Limit
from unrolled.compare.tune.lock import Study, open_study
from unrolled.compare.tune.settings import Settings
from unrolled.core.errors import UsageError
from unrolled.core.files import atomic_write
from unrolled.core.toml_text import toml_text
from unrolled.train import ExperimentConfig

__all__ = ["BEST", "Confirmed", "TrialFound", "Tuning", "wanted", "write_best"]

BEST = "best.toml"
_TRIALS = 60


def wanted(trials: int | None, cpu_hours: float | None) -> Limit:
    """How long a study goes on: 60 trials where nothing is said.

    Raises:
        UsageError: both are given.
    """
    if trials is not None and cpu_hours is not None:
        raise UsageError("give trials or CPU hours, not both.")
    return Limit(_TRIALS if trials is None and cpu_hours is None else trials, cpu_hours)


class TrialFound(NamedTuple):
    """A trial.

    Attributes:
        status: ``finished``, ``pruned`` (stopped at a rung), ``diverged``, ``refused`` (no model has these settings)
            or ``running``. value: nats per token by the quick validation, of the saved weights or at the rung; None
            for the others. step: optimiser steps at the rung. parameters: of the model; None where there is none.
        cpu_seconds: of training.
    """

    number: int
    settings: Settings
    status: str
    value: float | None
    step: int | None
    parameters: int | None
    cpu_seconds: float
    reason: str = ""


class Confirmed(NamedTuple):
    """Settings that were trained anew with new seeds.

    Attributes:
        number: of the trial. mean, sd: nats per token of the saved models on the whole validation split, over the
            seeds; infinite where one diverged, and an sd of 0 of one seed. bits_per_character: mean; None where the
            text has no characters to count. values: by seed.
    """

    number: int
    settings: Settings
    mean: float
    sd: float
    bits_per_character: float | None
    values: dict[int, float | None]


class Tuning:
    """A study and what it has found so far.

    Args:
        folder: of the study.
    Raises:
        UsageError: no study there, or its space was edited. UnrolledError: damaged files.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        self.board = Board(open_study(self.folder))

    @property
    def study(self) -> Study:
        """What was frozen when it began."""
        return self.board.study

    @cached_property
    def trials(self) -> tuple[TrialFound, ...]:
        """All trials by number, as they were when first asked for."""
        results = self.board.results()
        return tuple(_trial(number, one.settings, results.get(number)) for number, one in self.board.trials().items())

    @cached_property
    def confirmed(self) -> tuple[Confirmed, ...]:
        """The settings that were trained with every new seed, the best first."""
        found = [_confirmed(self.board, number) for number in self.board.leaders()]
        return tuple(sorted((one for one in found if one is not None), key=lambda one: (one.mean, one.number)))

    @property
    def best(self) -> Confirmed | None:
        """The best of the confirmed settings; None while they are not all confirmed."""
        done = len(self.confirmed) == len(self.board.leaders()) > 0
        return self.confirmed[0] if done and math.isfinite(self.confirmed[0].mean) else None

    @property
    def cpu_hours(self) -> float:
        """Of training: all trials and the runs that confirm."""
        return self.board.cpu_seconds() / 3600

    def config(self) -> ExperimentConfig:
        """The best settings as a whole experiment, with the first of the seeds that confirmed them.

        Raises:
            UsageError: they are not confirmed yet.
        """
        best = self._best()
        seed = self.study.space.confirm.seeds[0]
        return self.study.recipe(best.settings, seed, self.board.seconds_per_token())

    def _best(self) -> Confirmed:
        if (best := self.best) is None:
            raise UsageError(f"{self.folder} is not confirmed yet; go on with: unrolled tune run {self.folder}.")
        return best

    def recipe(self) -> str:
        """The best settings as the text of a recipe, what it cost to find them first.

        Raises:
            UsageError: they are not confirmed yet.
        """
        best, study, config = self._best(), self.study, self.config()
        done, hours = sum(one.status != "running" for one in self.trials), self.cpu_hours
        bits = "" if best.bits_per_character is None else f" ({best.bits_per_character:.4f} bits per character)"
        title = config.title or study.space.recipe
        values = config.model_copy(update={"title": f"{title}; tuned, {done} trials, {hours:.2f} CPU hours"})
        seeds = ", ".join(map(str, study.space.confirm.seeds))
        lines = [
            f"# study {study.name}, {study.sha256[:12]}: {study.space.title or study.space.recipe}",
            f"# trial {best.number} of {done} trials, {hours:.2f} CPU hours in all",
            f"# confirmed with seeds {seeds}: mean {best.mean:.4f} nats per token{bits}, sd {best.sd:.4f}",
        ]
        plain = [" ".join(line.split()) for line in lines]  # a title of several lines would leave the comment
        return "\n".join(plain) + "\n\n" + toml_text(values.model_dump(mode="json", exclude={"published"}))


def _trial(number: int, settings: Settings, result: dict[str, Any] | None) -> TrialFound:
    if result is None:
        return TrialFound(number, settings, "running", None, None, None, 0.0)
    return TrialFound(
        number, settings, result["status"], result["value"], result.get("step"), result.get("parameters"),
        result["cpu_seconds"], result.get("reason", ""),
    )  # fmt: skip


def _confirmed(board: Board, number: int) -> Confirmed | None:
    """None while a seed is missing."""
    jobs = [job for job in board.confirm_jobs() if job.number == number]
    results = [result for job in jobs if (result := board.result(job.id)) is not None]
    if len(results) < len(jobs):
        return None
    values = [math.inf if result["value"] is None else result["value"] for result in results]
    bits = [result.get("bits_per_character") for result in results]
    known = [one for one in bits if one is not None]
    finite = all(map(math.isfinite, values))
    return Confirmed(
        number,
        board.trials()[number].settings,
        statistics.fmean(values) if finite else math.inf,
        statistics.stdev(values) if finite and len(values) > 1 else 0.0,
        statistics.fmean(known) if len(known) == len(results) else None,
        {result["seed"]: result["value"] for result in results},
    )


def write_best(board: Board) -> None:
    """Write ``best.toml`` where the best is known."""
    tuning = Tuning(board.folder)
    if tuning.best is not None:
        atomic_write(board.folder / BEST, tuning.recipe())
