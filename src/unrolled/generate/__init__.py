"""Text from predictors: samplers, stop strings, streams, clamped units."""

from unrolled.generate.clamp import Clamp, ClampedPredictor
from unrolled.generate.sampler import SamplerConfig, draw, filter_log_prob
from unrolled.generate.text import FinishReason, Generation, Piece, generate, stream

__all__ = [
    "Clamp",
    "ClampedPredictor",
    "FinishReason",
    "Generation",
    "Piece",
    "SamplerConfig",
    "draw",
    "filter_log_prob",
    "generate",
    "stream",
]
