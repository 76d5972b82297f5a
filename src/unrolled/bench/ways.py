"""Ways of choosing the next token, timed as texts that a model writes."""

from collections.abc import Callable

from torch import Tensor

from unrolled.core.config import apply_settings
from unrolled.generate import BeamConfig, SamplerConfig, beam_search, generate
from unrolled.kernels.dispatch import Sizes
from unrolled.predict import Predictor
from unrolled.tokenizer.byte import ByteTokenizer

__all__ = ["BEAMS", "DRAW", "choosing", "sampler_of"]

DRAW, BEAMS = "draw", "beams"
"""Plain draws, and beam search with as many beams as the batch has rows."""


def sampler_of(way: str) -> SamplerConfig:
    """The sampler of a way: its settings with commas between.

    Raises:
        UsageError: settings that the sampler does not have.
    """
    if way in (DRAW, BEAMS):
        return SamplerConfig()
    return SamplerConfig.parse(apply_settings({}, way.split(",")))


def choosing(way: str, predictor: Predictor, sizes: Sizes) -> Callable[[], tuple[Tensor, ...]]:
    """A call that writes ``batch`` texts of ``window`` bytes each, or searches for one with so many beams."""
    tokenizer = ByteTokenizer()
    sampler = sampler_of(way)

    def draw() -> tuple[Tensor, ...]:
        generate(predictor, tokenizer, max_tokens=sizes.window, sampler=sampler, samples=sizes.batch)
        return ()

    def search() -> tuple[Tensor, ...]:
        beam_search(predictor, tokenizer, max_tokens=sizes.window, config=BeamConfig(beams=sizes.batch))
        return ()

    return search if way == BEAMS else draw
