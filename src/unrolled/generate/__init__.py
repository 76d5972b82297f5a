"""Text from predictors: samplers, stop strings, streams."""

from unrolled.generate.beam import BeamConfig, Hypothesis, beam_search
from unrolled.generate.config import SamplerConfig, bias_of, token_of
from unrolled.generate.filters import draws, filter_log_prob
from unrolled.generate.history import History, constraint_of
from unrolled.generate.row import FinishReason, TextRow
from unrolled.generate.sampler import choose, draw
from unrolled.generate.text import Generation, Piece, Told, generate, stream

__all__ = [
    "BeamConfig",
    "FinishReason",
    "Generation",
    "History",
    "Hypothesis",
    "Piece",
    "SamplerConfig",
    "TextRow",
    "Told",
    "beam_search",
    "bias_of",
    "choose",
    "constraint_of",
    "draw",
    "draws",
    "filter_log_prob",
    "generate",
    "stream",
    "token_of",
]
