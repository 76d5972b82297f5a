"""Predictors: the contract, models and counts as they are, and what is done to them at test time."""

from unrolled.predict.base import Prediction, Predictor, Scores, check_vocabulary
from unrolled.predict.cache import CacheConfig, CachePredictor, CacheState
from unrolled.predict.clamp import Clamp, ClampedPredictor
from unrolled.predict.config import PredictorConfig, make_predictor
from unrolled.predict.counts import CountState, KneserNeyPredictor
from unrolled.predict.dynamic import DynamicPredictor, DynamicState, gradient_statistics
from unrolled.predict.monte_carlo import MonteCarloConfig, MonteCarloPredictor
from unrolled.predict.packed import PackedPredictor
from unrolled.predict.static import NeuralPredictor, NeuralState

__all__ = [
    "CacheConfig",
    "CachePredictor",
    "CacheState",
    "Clamp",
    "ClampedPredictor",
    "CountState",
    "DynamicPredictor",
    "DynamicState",
    "KneserNeyPredictor",
    "MonteCarloConfig",
    "MonteCarloPredictor",
    "NeuralPredictor",
    "NeuralState",
    "PackedPredictor",
    "Prediction",
    "Predictor",
    "PredictorConfig",
    "Scores",
    "check_vocabulary",
    "gradient_statistics",
    "make_predictor",
]
