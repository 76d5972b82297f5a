"""Probes of what a trained model does with its states."""

from unrolled.analyse.corruption import Corruption, RecoveryConfig, draw_corruption
from unrolled.analyse.recovery import Recovery, measure_recovery, recovery_of_run

__all__ = [
    "Corruption",
    "Recovery",
    "RecoveryConfig",
    "draw_corruption",
    "measure_recovery",
    "recovery_of_run",
]
