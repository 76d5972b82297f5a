"""Evaluation: predictors, protocols, adaptation at test time, result records and per-token files."""

from unrolled.evaluate.adapt import PredictorConfig, make_predictor, open_predictor
from unrolled.evaluate.bootstrap import Difference, paired_difference
from unrolled.evaluate.cache import CacheConfig, CachePredictor
from unrolled.evaluate.counts import CountState, KneserNeyPredictor
from unrolled.evaluate.dropout import MonteCarloConfig, MonteCarloPredictor
from unrolled.evaluate.dynamic import DynamicPredictor, DynamicState, gradient_statistics
from unrolled.evaluate.ensemble import Ensemble, compare_files, fit_ensemble
from unrolled.evaluate.measure import EvalConfig, evaluate_predictor
from unrolled.evaluate.of_run import evaluate_run
from unrolled.evaluate.per_token import PerToken, PerTokenHeader, PerTokenWriter, read_per_token
from unrolled.evaluate.predictor import NeuralPredictor, NeuralState, Prediction, Predictor, Scores
from unrolled.evaluate.result import EvalResult, Protocol
from unrolled.evaluate.walk import Progress

__all__ = [
    "CacheConfig",
    "CachePredictor",
    "CountState",
    "Difference",
    "DynamicPredictor",
    "DynamicState",
    "Ensemble",
    "EvalConfig",
    "EvalResult",
    "KneserNeyPredictor",
    "MonteCarloConfig",
    "MonteCarloPredictor",
    "NeuralPredictor",
    "NeuralState",
    "PerToken",
    "PerTokenHeader",
    "PerTokenWriter",
    "Prediction",
    "Predictor",
    "PredictorConfig",
    "Progress",
    "Protocol",
    "Scores",
    "compare_files",
    "evaluate_predictor",
    "evaluate_run",
    "fit_ensemble",
    "gradient_statistics",
    "make_predictor",
    "open_predictor",
    "paired_difference",
    "read_per_token",
]
