"""Budgets: every kind is turned into a number of steps, once."""

import copy
import math
import time
from collections.abc import Callable

import torch

from unrolled.core.random import RandomStreams
from unrolled.core.record import cpu_seconds, wall_seconds
from unrolled.data import Stream
from unrolled.model import LanguageModel
from unrolled.optim import build_optimizer
from unrolled.train.config import PhaseConfig
from unrolled.train.step import train_step

__all__ = ["Clock", "plan_steps", "probe_seconds"]

# Share of a time budget spent on measuring how long a step takes, and the fewest steps measured.
_PROBE_SHARE, _PROBE_STEPS = 0.015, 3


class Clock:
    """Wall and CPU seconds of a run over all the processes that worked on it."""

    def __init__(self, wall_before: float = 0.0, cpu_before: float = 0.0):
        self._wall_before, self._cpu_before = wall_before, cpu_before

    def wall(self) -> float:
        """Wall-clock seconds."""
        return self._wall_before + wall_seconds()

    def cpu(self) -> float:
        """CPU seconds: user + system, all threads and children."""
        return self._cpu_before + cpu_seconds()


def probe_seconds(
    model: LanguageModel,
    stream: Stream,
    phase: PhaseConfig,
    streams: RandomStreams,
    cpu: bool,
    at_least: float = 0.0,
) -> float:
    """Seconds of one training step, measured on a copy of the model that is thrown away.

    Args:
        cpu: CPU seconds instead of wall-clock seconds.
        at_least: measure for this many seconds, and three steps in any case.
    """
    trial = copy.deepcopy(model)
    optimizer = build_optimizer(phase.optimizer, trial.parameters())
    clock: Callable[[], float] = time.process_time if cpu else time.perf_counter
    state, position, steps, start = None, 0, -1, clock()
    while steps < _PROBE_STEPS or clock() - start < at_least:
        result = train_step(trial, optimizer, stream, position, state, phase, streams, 0.0)
        state, position, steps = result.state, result.position, steps + 1
        if steps == 0:  # the first step allocates and is not counted
            start = clock()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return (clock() - start) / steps


def plan_steps(
    phase: PhaseConfig,
    model: LanguageModel,
    stream: Stream,
    streams: RandomStreams,
    clock: Clock,
    validation_seconds: Callable[[bool], float],
) -> int:
    """Number of steps that a phase's budget allows, at least 1.

    Args:
        validation_seconds: estimates the (CPU or wall) seconds of all validations of the phase.
    """
    kind, amount = phase.budget()
    windows = stream.windows_per_epoch()
    if kind == "steps":
        return int(amount)
    if kind == "tokens":
        return max(1, math.ceil(amount * windows / stream.tokens_per_epoch() / phase.accumulate))
    if kind == "epochs":
        return max(1, math.ceil(amount * windows / phase.accumulate))
    cpu = kind == "cpu_minutes"
    per_step = probe_seconds(model, stream, phase, streams, cpu, _PROBE_SHARE * 60 * amount)
    other = validation_seconds(cpu)
    spent = clock.cpu() if cpu else clock.wall()
    return max(1, int((60 * amount - spent - other) / per_step))
