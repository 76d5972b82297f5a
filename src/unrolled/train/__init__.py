"""Training."""

from unrolled.train.config import ExperimentConfig, PhaseConfig, TrainConfig
from unrolled.train.loop import resume, train
from unrolled.train.report import Reporter, TerminalReporter

__all__ = ["ExperimentConfig", "PhaseConfig", "Reporter", "TerminalReporter", "TrainConfig", "resume", "train"]
