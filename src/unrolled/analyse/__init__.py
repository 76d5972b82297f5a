"""Probes of what a trained model does with its states."""

from unrolled.analyse.corruption import Corruption, RecoveryConfig, draw_corruption
from unrolled.analyse.recovery import Recovery, measure_recovery, recovery_of_run
from unrolled.analyse.recovery_figures import Figure, Summary, labels, recovery_differences, summarise_recovery
from unrolled.analyse.recovery_report import plot_recovery, recovery_record, write_recovery

__all__ = [
    "Corruption",
    "Figure",
    "Recovery",
    "RecoveryConfig",
    "Summary",
    "draw_corruption",
    "labels",
    "measure_recovery",
    "plot_recovery",
    "recovery_differences",
    "recovery_of_run",
    "recovery_record",
    "summarise_recovery",
    "write_recovery",
]
