"""Evaluation: predictors, the static protocols, result records and per-token files."""

from unrolled.evaluate.per_token import PerToken, PerTokenHeader, PerTokenWriter, read_per_token
from unrolled.evaluate.predictor import NeuralPredictor, NeuralState, Prediction, Predictor, Scores
from unrolled.evaluate.result import EvalResult, Protocol
from unrolled.evaluate.static import EvalConfig, Progress, evaluate_static

__all__ = [
    "EvalConfig",
    "EvalResult",
    "NeuralPredictor",
    "NeuralState",
    "PerToken",
    "PerTokenHeader",
    "PerTokenWriter",
    "Prediction",
    "Predictor",
    "Progress",
    "Protocol",
    "Scores",
    "evaluate_static",
    "read_per_token",
]
