"""Text from predictors: samplers, stop strings, streams."""

from unrolled.generate.beam import BeamConfig, beam_search
from unrolled.generate.branch import Hypothesis
from unrolled.generate.config import SamplerConfig, bias_of, token_of
from unrolled.generate.filters import draws, filter_log_prob
from unrolled.generate.given import Condition, fit_probe, parse_events
from unrolled.generate.guidance import Contrast, ContrastConfig, Guidance, GuidanceConfig
from unrolled.generate.history import History, constraint_of
from unrolled.generate.repeats import repeated, repeats
from unrolled.generate.row import FinishReason, TextRow
from unrolled.generate.sampler import choose, draw
from unrolled.generate.search import Searched, tree_search
from unrolled.generate.speculative import Drafted, SpeculativeConfig, speculate
from unrolled.generate.text import Generation, Piece, Told, generate, stream

__all__ = [
    "BeamConfig",
    "Condition",
    "Contrast",
    "ContrastConfig",
    "Drafted",
    "FinishReason",
    "Generation",
    "Guidance",
    "GuidanceConfig",
    "History",
    "Hypothesis",
    "Piece",
    "SamplerConfig",
    "Searched",
    "SpeculativeConfig",
    "TextRow",
    "Told",
    "beam_search",
    "bias_of",
    "choose",
    "constraint_of",
    "draw",
    "draws",
    "filter_log_prob",
    "fit_probe",
    "generate",
    "parse_events",
    "repeated",
    "repeats",
    "speculate",
    "stream",
    "token_of",
    "tree_search",
]
