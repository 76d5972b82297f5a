"""Text from predictors: samplers, stop strings, streams."""

from unrolled.generate.row import FinishReason, TextRow
from unrolled.generate.sampler import SamplerConfig, draw, filter_log_prob
from unrolled.generate.text import Generation, Piece, generate, stream

__all__ = [
    "FinishReason",
    "Generation",
    "Piece",
    "SamplerConfig",
    "TextRow",
    "draw",
    "filter_log_prob",
    "generate",
    "stream",
]
