"""Predictors: the contract, models and counts as they are, and what is done to them at test time."""

from unrolled.predict.adapter import Adapter, AdapterConfig, Search, Source
from unrolled.predict.adapters import ADAPTERS
from unrolled.predict.base import Prediction, Predictor, Scores, check_vocabulary
from unrolled.predict.cache import CacheConfig, CachePredictor, CacheState
from unrolled.predict.clamp import Clamp, ClampedPredictor
from unrolled.predict.config import PredictorConfig, adapt
from unrolled.predict.counts import CountState, KneserNeyPredictor
from unrolled.predict.dynamic import DynamicPredictor, DynamicState
from unrolled.predict.gradients import gradient_statistics
from unrolled.predict.kept import KeptState, OtherModelError, StateForm
from unrolled.predict.monte_carlo import MonteCarloConfig, MonteCarloPredictor
from unrolled.predict.packed import PackedPredictor
from unrolled.predict.static import NeuralPredictor, NeuralState
from unrolled.predict.wrapped import WrappedPredictor

__all__ = [
    "ADAPTERS",
    "Adapter",
    "AdapterConfig",
    "CacheConfig",
    "CachePredictor",
    "CacheState",
    "Clamp",
    "ClampedPredictor",
    "CountState",
    "DynamicPredictor",
    "DynamicState",
    "KeptState",
    "KneserNeyPredictor",
    "MonteCarloConfig",
    "MonteCarloPredictor",
    "NeuralPredictor",
    "NeuralState",
    "OtherModelError",
    "PackedPredictor",
    "Prediction",
    "Predictor",
    "PredictorConfig",
    "Scores",
    "Search",
    "Source",
    "StateForm",
    "WrappedPredictor",
    "adapt",
    "check_vocabulary",
    "gradient_statistics",
]
