"""From a distribution to a token: temperature, filters, and draws that a seed repeats."""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from unrolled.core.config import Config
from unrolled.core.random import RandomStreams

__all__ = ["SamplerConfig", "draw", "filter_log_prob", "generator_of"]


_AT_ONCE = 1 << 16


class SamplerConfig(Config):
    """How the next token is chosen. The filters are applied in the order of the fields."""

    temperature: float = Field(
        default=1.0,
        ge=0,
        description="divides the log-probabilities; 0: always the most probable token",
    )
    top_k: int | None = Field(default=None, ge=1, description="keep the k most probable tokens, and ties with the last")
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="keep the fewest tokens, best first, that hold this probability",
    )
    min_p: float | None = Field(
        default=None, ge=0, le=1, description="keep tokens at least this fraction as probable as the best"
    )
    seed: int = Field(default=0, description="seed of the draws")


def filter_log_prob(log_prob: Tensor, config: SamplerConfig) -> Tensor:
    """The distribution to draw from.

    Each filter sees the distribution that the one before left, renormalised.

    Args:
        log_prob: (..., V) nats; need not be normalised.
    Returns:
        (..., V) normalised nats; minus infinity for tokens that are never drawn. At temperature 0, 0 for the
        most probable token (the lowest id among equals).
    Sources:
        top_p: Holtzman et al. 2020; min_p: Nguyen et al. 2024.
    """
    if config.temperature == 0:
        best = log_prob.argmax(-1, keepdim=True)
        return torch.full_like(log_prob, -torch.inf).scatter_(-1, best, 0.0)
    # The maximum is taken off first: a tiny temperature must not overflow.
    kept = torch.log_softmax((log_prob - log_prob.amax(-1, keepdim=True)) / config.temperature, -1)
    if config.top_k is not None and config.top_k < kept.shape[-1]:
        least = kept.topk(config.top_k, -1).values[..., -1:]
        kept = _keep(kept, kept >= least)
    if config.top_p is not None and config.top_p < 1:
        p, order = kept.exp().sort(dim=-1, descending=True, stable=True)
        before = p.cumsum(-1).roll(1, -1)
        before[..., 0] = 0
        inside = torch.zeros_like(kept, dtype=torch.bool).scatter_(-1, order, before < config.top_p)
        kept = _keep(kept, inside)
    if config.min_p:
        kept = _keep(kept, kept.exp() >= config.min_p * kept.amax(-1, keepdim=True).exp())
    return kept


def generator_of(seed: int, sample: int, drawn: int = 0) -> torch.Generator:
    """What the tokens of a text are drawn by: a stream of its own for each sample, ``drawn`` numbers of which were
    used by the part of the text before."""
    made = RandomStreams(seed).generator("sample", sample)
    while drawn > 0:
        torch.rand(min(drawn, _AT_ONCE), generator=made, dtype=torch.float64)
        drawn -= _AT_ONCE
    return made


def draw(log_prob: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """One token for each row, by inverting the cumulative distribution in float64.

    A row uses one number of its own generator, so it draws the same in any batch.

    Args:
        log_prob: (batch, V) normalised nats. generators: one a row, on the CPU.
    Returns:
        (batch,) ids on the CPU.
    """
    total = log_prob.double().cpu().exp().cumsum(-1)
    uniform = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in generators])
    # Strictly below the total, or rounding could choose a token of probability 0 at the end.
    below = torch.nextafter(total[:, -1:], torch.zeros(1, dtype=torch.float64))
    return torch.searchsorted(total, torch.minimum(uniform * total[:, -1:], below), right=True).squeeze(1)


def _keep(log_prob: Tensor, inside: Tensor) -> Tensor:
    return torch.log_softmax(log_prob.masked_fill(~inside, -torch.inf), -1)
