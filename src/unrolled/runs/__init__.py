"""Run directories: what training writes and everything else reads."""

from unrolled.runs.config import PublishedFigure, RunConfig
from unrolled.runs.names import CONFIG, MODEL, RECORD, STATE_TENSORS, STATES, TOKENIZER, saved_states
from unrolled.runs.run import Run, own_tokenizer
from unrolled.runs.weights import WeightsConfig, load_weights, weights

__all__ = [
    "CONFIG",
    "MODEL",
    "RECORD",
    "STATES",
    "STATE_TENSORS",
    "TOKENIZER",
    "PublishedFigure",
    "Run",
    "RunConfig",
    "WeightsConfig",
    "load_weights",
    "own_tokenizer",
    "saved_states",
    "weights",
]
