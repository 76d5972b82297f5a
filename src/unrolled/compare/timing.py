"""How long a token of training takes for each system: measured once, side by side, and turned into tokens."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from unrolled.core.notes import note
from unrolled.core.record import environment
from unrolled.optim import AVERAGING
from unrolled.train import ExperimentConfig
from unrolled.train.process import process_settings
from unrolled.train.setup import set_up
from unrolled.train.step import train_step
from unrolled.train.tools import make_tools

__all__ = ["time_systems"]

_ROUNDS, _STEPS, _WARM = 12, 5, 2
_SPREAD = 0.05


class _Timed:
    """A system that makes steps, of which nothing is kept."""

    def __init__(self, config: ExperimentConfig):
        parts = set_up(config)
        self.task, self.source, self.model = parts.task, parts.source, parts.model
        self.phase = config.train.phases()[0].model_copy(update={"averaging": AVERAGING.parse("none")})
        self.tools = make_tools(self.phase, self.task, self.model)
        self.state: Any = None
        self.position = 0
        self.best, self.seconds = float("inf"), []

    def steps(self, count: int) -> float:
        """CPU seconds per token of so many steps."""
        tokens, begun = 0, time.process_time()
        for _ in range(count):
            done = train_step(
                self.task, self.model, self.tools, self.source, self.position, self.state, self.phase, 0.0
            )
            self.state, self.position, tokens = done.state, done.position, tokens + done.tokens
        return (time.process_time() - begun) / tokens


def time_systems(
    systems: Mapping[str, ExperimentConfig], threads: int, tell: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """CPU seconds per token of every system: rounds of a few steps of each in turn, of which the fastest counts, so
    that an hour in which the machine was busy is the same hour for all.

    Args:
        systems: name -> configuration.
    Returns:
        JSON values: ``seconds_per_token`` by system, their ``spread`` (the median round over the fastest, less 1), the
        machine. A spread above 5 % is told.
    """
    with process_settings(threads):
        timed = {name: _Timed(config) for name, config in systems.items()}
        for name, one in timed.items():
            tell(f"timing {name}")
            one.steps(_WARM)
        for number in range(_ROUNDS):
            tell(f"timing, round {number + 1} of {_ROUNDS}")
            for one in timed.values():
                one.seconds.append(one.steps(_STEPS))
        found = environment()
    fastest = {name: min(one.seconds) for name, one in timed.items()}
    spread = {name: sorted(one.seconds)[_ROUNDS // 2] / fastest[name] - 1 for name, one in timed.items()}
    widest = max(spread, key=lambda name: spread[name])
    if spread[widest] > _SPREAD:
        note(
            f"the rounds of {widest} differ by {spread[widest]:.0%}: the machine was busy; to time again on a quiet "
            "core, delete the result time.* and run on."
        )
    return {"seconds_per_token": fastest, "spread": spread, "rounds": _ROUNDS, "steps": _STEPS, "environment": found}
