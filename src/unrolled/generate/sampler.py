"""From distributions to tokens: what was said, filters, and draws that a seed repeats."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.core.random import RandomStreams
from unrolled.generate.config import SamplerConfig
from unrolled.generate.filters import filter_log_prob
from unrolled.generate.history import History

__all__ = ["Chosen", "changed_by", "choose", "draw", "generator_of"]


_AT_ONCE = 1 << 16


class Chosen(NamedTuple):
    """ids: (batch,) on the CPU. log_prob: (batch, V) nats of the distributions that they were drawn from. stuck: rows
    for which no token was left; what stands there means nothing, and their histories say why."""

    ids: Tensor
    log_prob: Tensor
    stuck: list[int]


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


def choose(
    log_prob: Tensor,
    sampler: SamplerConfig,
    generators: Sequence[torch.Generator],
    histories: Sequence[History] | None = None,
) -> Chosen:
    """The next token of each row.

    Args:
        log_prob: (batch, V) nats of the model. generators: one a row.
        histories: of each row, where the sampler remembers.
    """
    changed, stuck = changed_by(log_prob, sampler, histories), []
    if histories is not None and (stuck := changed.amax(-1).isneginf().nonzero().squeeze(1).tolist()):
        changed[stuck] = log_prob[stuck].to(changed)
    filtered = filter_log_prob(changed, sampler)
    # Greedy choice needs no random number, and no copy of the whole distribution to the CPU.
    ids = filtered.argmax(-1).cpu() if sampler.temperature == 0 else draw(filtered, generators)
    return Chosen(ids, filtered, stuck)


def changed_by(log_prob: Tensor, sampler: SamplerConfig, histories: Sequence[History] | None) -> Tensor:
    """Log-probabilities (batch, V) with the bias, and changed by what was said; not normalised."""
    if sampler.bias:
        log_prob = log_prob.clone()
        log_prob[:, list(sampler.bias)] += log_prob.new_tensor(list(sampler.bias.values()))
    if histories is None:
        return log_prob
    return torch.stack([one.apply(row) for one, row in zip(histories, log_prob.cpu(), strict=True)])
