"""Learning-rate schedules as functions of the fraction of the budget spent."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from unrolled.core.config import Config
from unrolled.core.errors import UsageError

__all__ = ["ScheduleConfig", "learning_rate_factor"]


class ScheduleConfig(Config):
    """Shape of the learning rate over a phase, the same for budgets in steps, tokens, epochs or minutes."""

    name: Literal["constant", "linear", "cosine", "exponential", "inverse_sqrt", "drops"] = Field(
        default="linear",
        description="decay after the warm-up; inverse_sqrt: with the root of the steps so far; drops: in steps",
    )
    warmup: float = Field(
        default=0.02, ge=0, lt=1, description="fraction of the budget in which the rate rises linearly"
    )
    hold: float = Field(
        default=0.0, ge=0, lt=1, description="fraction of the budget after the warm-up at the full rate"
    )
    final: float = Field(default=0.0, ge=0, le=1, description="rate at the end, as a fraction of the full rate")
    end: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="linear: fraction of the budget at which the line reaches zero; the rate goes no lower than final "
        "(absent: the line reaches final at the end)",
    )
    drops: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        default=(),
        max_length=1000,
        description="drops: fractions of the budget at which the rate is multiplied by factor",
    )
    factor: float = Field(default=0.1, gt=0, le=1, description="drops: factor of each drop")

    @model_validator(mode="after")
    def _read(self) -> "ScheduleConfig":
        if (self.name == "drops") != bool(self.drops):
            raise UsageError("schedule.drops and name = 'drops' go together; give both or neither.")
        if self.name == "exponential" and not self.final:
            raise UsageError("an exponential schedule cannot reach 0; set schedule.final above 0.")
        if self.name == "inverse_sqrt" and (not self.warmup + self.hold or self.final):
            raise UsageError("an inverse_sqrt schedule begins after a warm-up; set schedule.warmup, and no final.")
        if self.end is not None and (self.name != "linear" or self.end <= self.warmup + self.hold):
            raise UsageError("schedule.end is for a linear schedule and lies after the warm-up; leave it out.")
        return self


def learning_rate_factor(config: ScheduleConfig, fraction: float) -> float:
    """Multiplier of the learning rate.

    Args:
        fraction: share of the budget spent before this step, in [0, 1].
    """
    fraction = min(max(fraction, 0.0), 1.0)
    if fraction < config.warmup:
        # never 0: the first step of a short run must move
        return max(fraction / config.warmup, 1e-3)
    start = min(config.warmup + config.hold, 1.0)
    if config.name == "constant" or fraction <= start or start == 1.0:
        return 1.0
    if config.name == "drops":
        return config.factor ** sum(fraction >= drop for drop in config.drops)
    if config.end is not None:
        return max(config.final, 1 - (fraction - start) / (config.end - start))
    if config.name == "inverse_sqrt":
        return math.sqrt(start / fraction)
    left = (1 - fraction) / (1 - start)
    if config.name == "exponential":
        return config.final ** (1 - left)
    shape = left if config.name == "linear" else 0.5 * (1 - math.cos(math.pi * left))
    return config.final + (1 - config.final) * shape
