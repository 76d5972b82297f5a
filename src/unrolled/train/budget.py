"""Budgets: every kind is turned into a number of steps; for one in time that number is revised a few times."""

import copy
import math
import time
from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from unrolled.core.errors import UsageError
from unrolled.core.group import alone
from unrolled.core.record import cpu_seconds, wall_seconds
from unrolled.optim import AVERAGING
from unrolled.task import Source, StepsTask
from unrolled.train.config import PhaseConfig
from unrolled.train.step import train_step
from unrolled.train.tools import make_tools

__all__ = ["REVISIONS", "Clock", "StepCost", "plan_steps", "probe", "revise_steps"]

# Shares of a budget in time at which the number of steps is revised: a short probe can be off by half on a machine
# with other work.
REVISIONS = (0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.96)

# Share of a time budget spent on measuring how long a step takes, the most seconds and the fewest steps of it.
_PROBE_SHARE, _PROBE_SECONDS, _PROBE_STEPS = 0.015, 20.0, 3


class Clock:
    """Wall and CPU seconds of a run over all the processes that worked on it.

    Args:
        from_start: count this process from its start (a command), not from now (a call in a longer program).
    """

    def __init__(self, from_start: bool = False):
        self._wall, self._cpu = (0.0, 0.0) if from_start else (-wall_seconds(), -cpu_seconds())
        self._agreed: tuple[float, float] | None = None

    def add(self, wall: float, cpu: float) -> None:
        """Count the seconds of earlier processes too."""
        self._wall, self._cpu = self._wall + wall, self._cpu + cpu

    def agree(self, wall: float, cpu: float) -> None:
        """Show these seconds until the next call: those that a group of processes has agreed on, so that all of them
        decide alike."""
        self._agreed = wall, cpu

    def own(self) -> tuple[float, float]:
        """Wall and CPU seconds of this process, and of what was added."""
        return self._wall + wall_seconds(), self._cpu + cpu_seconds()

    def wall(self) -> float:
        """Wall-clock seconds."""
        return self.own()[0] if self._agreed is None else self._agreed[0]

    def cpu(self) -> float:
        """CPU seconds: user + system, all threads and children; of a group those of all processes."""
        return self.own()[1] if self._agreed is None else self._agreed[1]


class StepCost(NamedTuple):
    """Seconds of one training step."""

    wall: float
    cpu: float


def probe(task: StepsTask, model: nn.Module, source: Source, phase: PhaseConfig, at_least: float = 0.0) -> StepCost:
    """The cost of a training step, measured on a copy of the model that is thrown away.

    Args:
        at_least: measure for this many wall-clock seconds, and three steps in any case.
    """
    trial = copy.deepcopy(model)
    tools = make_tools(phase.model_copy(update={"averaging": AVERAGING.parse("none")}), task, trial)
    state, position, steps = None, 0, -1
    wall = cpu = 0.0
    while steps < _PROBE_STEPS or time.perf_counter() - wall < at_least:
        result = train_step(task, trial, tools, source, position, state, phase, 0.0)
        state, position, steps = result.state, result.position, steps + 1
        if steps == 0:  # the first step allocates and is not counted
            wall, cpu = time.perf_counter(), time.process_time()
    return StepCost((time.perf_counter() - wall) / steps, (time.process_time() - cpu) / steps)


def plan_steps(
    phase: PhaseConfig,
    task: StepsTask,
    model: nn.Module,
    source: Source,
    spent: Callable[[bool], float],
    validations: Callable[[bool, float], float],
) -> int:
    """Number of steps that a phase's budget allows, at least 1.

    Args:
        spent: (CPU or wall) seconds that the phase has used so far. validations: those that its validations will take
            where so many seconds are left for them and for training. Both are asked for a budget in time only.
    Raises:
        UsageError: a budget in time that leaves no room for a step.
    """
    kind, amount = phase.budget()
    windows = source.windows_per_epoch()
    if kind == "steps":
        return int(amount)
    if kind == "tokens":
        return max(1, math.ceil(amount * windows / source.tokens_per_epoch() / phase.accumulate))
    if kind == "epochs":
        return max(1, math.ceil(amount * windows / phase.accumulate))
    cpu = kind == "cpu_minutes"
    with alone():  # each process in its own time; the messages of a group are left out, and revisions see them
        cost = probe(task, model, source, phase, min(_PROBE_SHARE * 60 * amount, _PROBE_SECONDS))
    checking = validations(cpu, 60 * amount - spent(cpu))
    begun = spent(cpu)
    steps = int((60 * amount - begun - checking) / (cost.cpu if cpu else cost.wall))
    if steps < 1:
        raise UsageError(
            f"train.{kind} = {amount:g} is {60 * amount:.1f} seconds, of which start-up took {begun:.1f} and the "
            f"validations will take {checking:.1f}: no time is left to train; raise the budget, or lower "
            "train.validations or train.valid_tokens."
        )
    return steps


def revise_steps(done: int, left: float, step_seconds: float) -> int:
    """Steps of the whole phase, of which ``done`` are made, when ``left`` seconds remain for steps of this cost."""
    return done + max(0, int(left / step_seconds))
