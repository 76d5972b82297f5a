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
from unrolled.evaluate.pair_files import Pair, read_pairs
from unrolled.evaluate.pairs import PairsConfig, PairsResult, compare_pairs
from unrolled.evaluate.per_token import PerToken, PerTokenHeader, PerTokenWriter, read_per_token
from unrolled.evaluate.predictor import NeuralPredictor, NeuralState, Prediction, Predictor, Scores
from unrolled.evaluate.prepared import PreparedPredictor
from unrolled.evaluate.result import EvalResult, Protocol
from unrolled.evaluate.score import ScoreConfig, Scored, score_text
from unrolled.evaluate.walk import Progress
from unrolled.evaluate.word_tables import WordTable, read_words
from unrolled.evaluate.words import TextBlock, Unit, read_text

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
    "Pair",
    "PairsConfig",
    "PairsResult",
    "PerToken",
    "PerTokenHeader",
    "PerTokenWriter",
    "Prediction",
    "Predictor",
    "PredictorConfig",
    "PreparedPredictor",
    "Progress",
    "Protocol",
    "ScoreConfig",
    "Scored",
    "Scores",
    "TextBlock",
    "Unit",
    "WordTable",
    "compare_files",
    "compare_pairs",
    "evaluate_predictor",
    "evaluate_run",
    "fit_ensemble",
    "gradient_statistics",
    "make_predictor",
    "open_predictor",
    "paired_difference",
    "read_pairs",
    "read_per_token",
    "read_text",
    "read_words",
    "score_text",
]
