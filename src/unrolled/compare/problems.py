"""Synthetic problems in the place of corpora: what each run learns, and at which points it is measured."""

import itertools
from typing import Any

from pydantic import Field, model_validator

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data.made import MADE, AnyProblemConfig, Problem
from unrolled.evaluate.points import Figures, measure_points
from unrolled.runs import Run
from unrolled.tasks.made import Made, MadeConfig
from unrolled.train import ExperimentConfig

__all__ = ["TRAINED", "PlanProblem", "figure_name", "measure_problem", "with_problem"]

TRAINED = "as trained"
"""What the point is called that is the problem as it was learned."""

_MEASURED = ("accuracy", "exact", "legal")


class PlanProblem(Config):
    """A problem that every system learns, and where it is measured afterwards."""

    label: str = Field(min_length=1, max_length=60, description="what tables call it")
    problem: AnyProblemConfig = Field(description="what is learned; its numbers may be ranges")
    points: dict[str, tuple[float | int | str, ...]] = Field(
        default={}, description="settings to measure at other values, in all combinations, besides as it was trained"
    )
    rows: int = Field(default=500, ge=1, le=1 << 20, description="rows that are measured at each point")

    @model_validator(mode="after")
    def _possible(self) -> "PlanProblem":
        problem = self.made()
        for point in self.all_points():
            problem.at(**point)
        return self

    def made(self) -> Problem:
        """The problem itself."""
        return MADE[self.problem.name](self.problem)

    def all_points(self) -> list[dict[str, Any]]:
        """As it was trained, and then all combinations."""
        rows = itertools.product(*self.points.values()) if self.points else ()
        return [{}, *(dict(zip(self.points, row, strict=True)) for row in rows)]

    def named_points(self) -> list[str]:
        """Their names in tables."""
        return [_named(point) for point in self.all_points()]


def _named(point: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in point.items()) or TRAINED


def figure_name(kind: str, point: str) -> str:
    """What a run's figure at a point is called: ``accuracy at length=64``."""
    return f"{kind} at {point}"


def with_problem(config: ExperimentConfig, one: PlanProblem) -> ExperimentConfig:
    """A configuration of the task ``made`` with another problem.

    Raises:
        UsageError: it is of another task.
    """
    if not isinstance(config.task, MadeConfig):
        raise UsageError("the recipe of a plan of synthetic problems is of the task made, such as probe.")
    return config.model_copy(update={"task": config.task.model_copy(update={"problem": one.problem})})


def measure_problem(run: Run, one: PlanProblem) -> dict[str, float]:
    """The figures of a run at every point, on rows of the test split: by :func:`figure_name`, shares with the ends of
    their 95 % intervals over rows (``accuracy``, ``accuracy low``, ``accuracy high``, ``exact``, ..., ``excess``)."""
    task = run.task
    assert isinstance(task, Made)
    streams = RandomStreams(run.config.seed)
    results = measure_points(run.model, task.problem, one.all_points(), one.rows, streams, apart=task.apart)
    found: dict[str, float] = {}
    for name, result in zip(one.named_points(), results, strict=True):
        for kind, value in _figures(result.figures).items():
            found[figure_name(kind, name)] = value
    return found


def _figures(figures: Figures) -> dict[str, float]:
    values = {"nats": figures.nats}
    for kind in _MEASURED:
        share = getattr(figures, kind)
        if share is not None:
            values |= {kind: share.value, f"{kind} low": share.low, f"{kind} high": share.high}
    if figures.excess is not None and figures.error is not None:
        values |= {"excess": figures.excess, "excess error": figures.error}
    return values
