"""Text from predictors: samplers, stop strings, streams."""

from unrolled.generate.beam import BeamConfig, Hypothesis, beam_search
from unrolled.generate.config import SamplerConfig, bias_of
from unrolled.generate.filters import filter_log_prob
from unrolled.generate.history import History
from unrolled.generate.repeats import repeated, repeats
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
    "draw",
    "filter_log_prob",
    "generate",
    "repeated",
    "repeats",
    "stream",
]
