"""Learning-rate schedules as functions of the fraction of the budget spent."""

import math
from typing import Literal

from pydantic import Field

from unrolled.core.config import Config

__all__ = ["ScheduleConfig", "learning_rate_factor"]


class ScheduleConfig(Config):
    """Shape of the learning rate over a phase, the same for budgets in steps, tokens, epochs or minutes."""

    name: Literal["constant", "linear", "cosine"] = Field(default="linear", description="decay after the warm-up")
    warmup: float = Field(
        default=0.02, ge=0, lt=1, description="fraction of the budget in which the rate rises linearly"
    )
    hold: float = Field(
        default=0.0, ge=0, lt=1, description="fraction of the budget after the warm-up at the full rate"
    )
    final: float = Field(default=0.0, ge=0, le=1, description="rate at the end, as a fraction of the full rate")


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
    left = (1 - fraction) / (1 - start)
    shape = left if config.name == "linear" else 0.5 * (1 - math.cos(math.pi * left))
    return config.final + (1 - config.final) * shape
