"""Text from predictors: samplers, stop strings, streams."""

from unrolled.generate.sampler import SamplerConfig, draw, filter_log_prob
from unrolled.generate.text import FinishReason, Generation, Piece, generate, stream

__all__ = [
    "FinishReason",
    "Generation",
    "Piece",
    "SamplerConfig",
    "draw",
    "filter_log_prob",
    "generate",
    "stream",
]
