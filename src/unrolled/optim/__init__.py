"""Update rules and schedules."""

from unrolled.optim.optimizers import OPTIMIZERS, AnyOptimizerConfig, OptimizerConfig, build_optimizer
from unrolled.optim.schedules import ScheduleConfig, learning_rate_factor

__all__ = [
    "OPTIMIZERS",
    "AnyOptimizerConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "build_optimizer",
    "learning_rate_factor",
]
