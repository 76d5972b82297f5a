"""Update rules, schedules and averages."""

from unrolled.optim.averaging import AVERAGING, AnyAveragingConfig, Averager, AveragingConfig
from unrolled.optim.optimizers import (
    OPTIMIZERS,
    AnyOptimizerConfig,
    OptimizerConfig,
    build_optimizer,
    set_rate,
)
from unrolled.optim.schedules import ScheduleConfig, learning_rate_factor

__all__ = [
    "AVERAGING",
    "OPTIMIZERS",
    "AnyAveragingConfig",
    "AnyOptimizerConfig",
    "Averager",
    "AveragingConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "build_optimizer",
    "learning_rate_factor",
    "set_rate",
]
