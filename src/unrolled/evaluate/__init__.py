"""Evaluation: protocols, result records, per-token files, ensembles, texts and minimal pairs."""

from unrolled.evaluate.bootstrap import Difference, paired_difference
from unrolled.evaluate.ensemble import Ensemble, compare_files, fit_ensemble
from unrolled.evaluate.grid import evaluate_grid
from unrolled.evaluate.measure import EvalConfig, evaluate_predictor
from unrolled.evaluate.of_run import evaluate_run
from unrolled.evaluate.opening import open_predictor, state_form
from unrolled.evaluate.per_token import PerToken, PerTokenHeader, PerTokenWriter, read_per_token
from unrolled.evaluate.result import EvalResult, Protocol
from unrolled.evaluate.text import (
    Pair,
    PairsConfig,
    PairsResult,
    ScoreConfig,
    Scored,
    TextBlock,
    Unit,
    WordTable,
    compare_pairs,
    line_of_words,
    read_pairs,
    read_text,
    read_words,
    score_ids,
    score_text,
)

__all__ = [
    "Difference",
    "Ensemble",
    "EvalConfig",
    "EvalResult",
    "Pair",
    "PairsConfig",
    "PairsResult",
    "PerToken",
    "PerTokenHeader",
    "PerTokenWriter",
    "Protocol",
    "ScoreConfig",
    "Scored",
    "TextBlock",
    "Unit",
    "WordTable",
    "compare_files",
    "compare_pairs",
    "evaluate_grid",
    "evaluate_predictor",
    "evaluate_run",
    "fit_ensemble",
    "line_of_words",
    "open_predictor",
    "paired_difference",
    "read_pairs",
    "read_per_token",
    "read_text",
    "read_words",
    "score_ids",
    "score_text",
    "state_form",
]
