"""Dropout sites: where masks are applied, and drawing them from named random streams."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from unrolled.core.config import Config
from unrolled.core.random import RandomStreams

__all__ = ["DropoutConfig", "Masks", "apply_mask", "draw_mask"]


class DropoutConfig(Config):
    """Dropout rates by site. Masks are scaled by 1/(1 - rate); evaluation uses none."""

    embedding: float = Field(
        default=0.0, ge=0, lt=1, description="rate of whole rows of the embedding, once per window"
    )
    input: float = Field(default=0.0, ge=0, lt=1, description="rate on the embedded input")
    between: float = Field(default=0.0, ge=0, lt=1, description="rate on the outputs between layers")
    state: float = Field(default=0.0, ge=0, lt=1, description="rate on the recurrent state h")
    output: float = Field(default=0.0, ge=0, lt=1, description="rate on the last output, before the head")
    projected: float = Field(
        default=0.0, ge=0, lt=1, description="rate on the head's down-projected output, if it has one"
    )
    mask: Literal["step", "window"] = Field(
        default="window",
        description="a fresh mask at every step, or one for all steps of a window (variational, locked)",
    )
    state_mask: Literal["step", "window"] = Field(default="window", description="the same choice for the state")
    state_place: Literal["in", "out"] = Field(
        default="in",
        description="in: h(t-1) is masked on entry (Mogrifier); out: h(t) is masked as output and as carry (mLSTM)",
    )


class Masks(NamedTuple):
    """Drawn masks of one window; None where a site is off.

    embedding: (vocabulary, 1). input, output: (batch, 1 or time, width). between, state: one a layer.
    head: what the head drew for itself.
    """

    embedding: Tensor | None
    input: Tensor | None
    between: tuple[Tensor | None, ...]
    state: tuple[Tensor | None, ...]
    output: Tensor | None
    head: Any


def draw_mask(
    rate: float,
    shape: tuple[int, ...],
    streams: RandomStreams,
    site: str,
    window: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor | None:
    """A Bernoulli mask scaled by 1/(1 - rate), from the stream (seed, site, rank, window); None at rate 0."""
    if rate == 0:
        return None
    generator = streams.generator(f"dropout.{site}", window)
    keep = torch.rand(shape, generator=generator) >= rate
    return keep.to(dtype).div_(1 - rate).to(device)


def apply_mask(x: Tensor, mask: Tensor | None) -> Tensor:
    """x times the mask; x itself where there is none."""
    return x if mask is None else x * mask
