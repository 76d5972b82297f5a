"""From a model's distribution to the one that is drawn from: what is kept of it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unrolled.generate.config import SamplerConfig

__all__ = ["FILTERS", "draws", "filter_log_prob"]


def filter_log_prob(log_prob: Tensor, config: SamplerConfig) -> Tensor:
    """The distribution to draw from.

    Temperature first, then each of :data:`FILTERS` whose option is given; it sees the distribution that the one before
    left, renormalised.

    Args:
        log_prob: (..., V) nats; need not be normalised.
    Returns:
        (..., V) normalised nats; minus infinity for tokens that are never drawn. At temperature 0, 0 for the
        most probable token (the lowest id among equals).
    """
    if config.temperature == 0:
        best = log_prob.argmax(-1, keepdim=True)
        return torch.full_like(log_prob, -torch.inf).scatter_(-1, best, 0.0)
    # The maximum is taken off first: a tiny temperature must not overflow.
    kept = torch.log_softmax((log_prob - log_prob.amax(-1, keepdim=True)) / config.temperature, -1)
    for name, keep in FILTERS.items():
        value = getattr(config, name)
        if value is not None and (inside := keep(kept, value)) is not None:
            kept = torch.log_softmax(kept.masked_fill(~inside, -torch.inf), -1)
    return kept


def _top_k(log_prob: Tensor, count: int) -> Tensor | None:
    """The most probable tokens, and ties with the last of them."""
    return log_prob >= log_prob.topk(count, -1).values[..., -1:] if count < log_prob.shape[-1] else None


def _top_p(log_prob: Tensor, share: float) -> Tensor | None:
    """Holtzman et al. 2020."""
    return _mass(log_prob, -log_prob, share) if share < 1 else None


def _min_p(log_prob: Tensor, share: float) -> Tensor | None:
    """Nguyen et al. 2024."""
    return log_prob.exp() >= share * log_prob.amax(-1, keepdim=True).exp() if share else None


def _typical(log_prob: Tensor, share: float) -> Tensor | None:
    """Meister et al. 2023."""
    return _mass(log_prob, (log_prob + _entropy(log_prob)).abs(), share) if share < 1 else None


def _epsilon(log_prob: Tensor, least: float) -> Tensor:
    """Hewitt, Manning and Liang 2022."""
    return _at_least(log_prob, torch.full_like(log_prob[..., :1], least))


def _eta(log_prob: Tensor, eta: float) -> Tensor:
    """Hewitt, Manning and Liang 2022, algorithm 1."""
    return _at_least(log_prob, (eta**0.5 * torch.exp(-_entropy(log_prob))).clamp(max=eta))


FILTERS: dict[str, Callable[[Tensor, Any], Tensor | None]] = {
    "top_k": _top_k,
    "top_p": _top_p,
    "min_p": _min_p,
    "typical": _typical,
    "epsilon": _epsilon,
    "eta": _eta,
}
"""Option of the sampler -> what it keeps of a distribution (..., V) of normalised nats, in the order in which they
come: boolean (..., V), at least one true, or None for all. A further filter is a row here and a
field of :class:`Choosing`; the command line has it by ``--set sampler.NAME`` and a server by its name."""


def _mass(log_prob: Tensor, order: Tensor, share: float) -> Tensor:
    """Boolean (..., V): the fewest tokens, by rising ``order``, that hold this share of the probability."""
    order = torch.where(log_prob.isneginf(), torch.inf, order)
    ranked = order.sort(dim=-1, stable=True).indices
    before = log_prob.exp().gather(-1, ranked).cumsum(-1).roll(1, -1)
    before[..., 0] = 0
    return torch.zeros_like(log_prob, dtype=torch.bool).scatter_(-1, ranked, before < share)


def _at_least(log_prob: Tensor, least: Tensor) -> Tensor:
    """Boolean (..., V): tokens with this probability, and the most probable one in any case."""
    return (log_prob.exp() >= least) | (log_prob == log_prob.amax(-1, keepdim=True))


def _entropy(log_prob: Tensor) -> Tensor:
    """(..., 1) nats."""
    return torch.special.entr(log_prob.exp()).sum(-1, keepdim=True)


def draws(config: SamplerConfig) -> bool:
    """Whether options are given that a search, which chooses the best and draws nothing, has no part for."""
    return config.temperature != 1 or any(getattr(config, name) is not None for name in FILTERS)
