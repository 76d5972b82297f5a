"""From a model's distribution to the one that is drawn from: what is kept of it."""

import torch
from torch import Tensor

from unrolled.generate.config import SamplerConfig

__all__ = ["filter_log_prob"]


def filter_log_prob(log_prob: Tensor, config: SamplerConfig) -> Tensor:
    """The distribution to draw from.

    Each filter sees the distribution that the one before left, renormalised.

    Args:
        log_prob: (..., V) nats; need not be normalised.
    Returns:
        (..., V) normalised nats; minus infinity for tokens that are never drawn. At temperature 0, 0 for the
        most probable token (the lowest id among equals).
    Sources:
        top_p: Holtzman et al. 2020; min_p: Nguyen et al. 2024; typical: Meister et al. 2023; epsilon and eta: Hewitt,
        Manning and Liang 2022.
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
        kept = _keep(kept, _mass(kept, -kept, config.top_p))
    if config.min_p:
        kept = _keep(kept, kept.exp() >= config.min_p * kept.amax(-1, keepdim=True).exp())
    if config.typical is not None and config.typical < 1:
        kept = _keep(kept, _mass(kept, (kept + _entropy(kept)).abs(), config.typical))
    if config.epsilon is not None:
        kept = _keep(kept, _at_least(kept, torch.full_like(kept[..., :1], config.epsilon)))
    if config.eta is not None:
        least = (config.eta**0.5 * torch.exp(-_entropy(kept))).clamp(max=config.eta)
        kept = _keep(kept, _at_least(kept, least))
    return kept


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


def _keep(log_prob: Tensor, inside: Tensor) -> Tensor:
    return torch.log_softmax(log_prob.masked_fill(~inside, -torch.inf), -1)
