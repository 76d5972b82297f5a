"""Training."""

from unrolled.train.budget import Clock
from unrolled.train.config import ExperimentConfig, PhaseConfig, TrainConfig
from unrolled.train.report import Reporter, TerminalReporter
from unrolled.train.start import resume, train

__all__ = [
    "Clock",
    "ExperimentConfig",
    "PhaseConfig",
    "Reporter",
    "TerminalReporter",
    "TrainConfig",
    "resume",
    "train",
]
