"""Smoothing over sequences that are like the text."""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.core.group import current
from unrolled.core.random import RandomStreams
from unrolled.model import LanguageModel
from unrolled.task import Seen
from unrolled.train.objectives.base import Extra, ExtraConfig, Given

__all__ = ["SmoothSequence", "SmoothSequenceConfig", "chance", "substitute"]


class SmoothSequenceConfig(ExtraConfig):
    """Options of smoothing over sequences."""

    name: Literal["smooth_sequence"] = "smooth_sequence"
    weight: float = Field(default=0.3, ge=0, le=1, description="share a of the loss that the drawn sequences have")
    tau: float = Field(
        default=0.15, ge=0, le=1e6, description="how far they lie from the text (0: nowhere; published: 0.13 to 0.3)"
    )
    substitutes: Literal["window", "vocabulary"] = Field(
        default="window", description="tokens that take the place of others: the window's targets, or all"
    )
    lazy: bool = Field(
        default=True,
        description="the drawn tokens are targets alone, and the states are the text's; false: they are read too, "
        "which costs a second pass",
    )


class SmoothSequence(Extra):
    r"""Sequence-level loss smoothing by the Hamming distance (Elbayad, Besacier and Verbeek 2018; the target
    distribution is that of reward augmented maximum likelihood, Norouzi et al. 2016).

    .. math::
        (1 - a)\,(-\log p(y)) + a\,(-\log p(\tilde y)), \quad
        r(\tilde y\,|\,y) \propto \exp(-d(\tilde y, y)/\tau)

    with :math:`\tilde y` drawn from r, and d the number of places in which two sequences differ. Since d is a sum over
    places, r is a product over them: each token by itself is replaced with the chance
    (S-1)e / (1 + (S-1)e), e = exp(-1/tau), by one of the S-1 others of S substitutes. So a window of any length, or a
    sentence in parts, is drawn from r as the whole is. (The released samplers, also that called edit distance, draw
    places with replacement and may draw the token that was there; their distances are others than r's.) S is the
    number of distinct targets of the window, or V.

    Raises:
        UsageError: a model that is no language model.
    """

    Config = SmoothSequenceConfig
    EXAMPLES = (
        SmoothSequenceConfig(tau=0.5),
        SmoothSequenceConfig(tau=0.5, lazy=False, substitutes="vocabulary", weight=0.6),
    )

    def __init__(self, config: SmoothSequenceConfig, streams: RandomStreams, model: nn.Module):
        super().__init__(config, streams, model)
        if not isinstance(model, LanguageModel):
            raise UsageError("the objective smooth_sequence needs a language model; leave it out of train.extra.")

    def value(self, given: Given) -> Tensor:
        """See :meth:`Extra.value`."""
        seen, model = given.seen, given.seen.model
        assert isinstance(model, LanguageModel)
        targets = self._drawn(seen, model, given.position)
        out = seen.out
        if not self.config.lazy:
            read = torch.cat([seen.batch.inputs[:, :1], targets[:, :-1]], 1)
            if seen.reset is not None:  # the start symbol stays
                read = torch.where(seen.reset, seen.batch.inputs, read)
            out = model(read, seen.state, seen.reset, seen.drawn)
        total, _, _ = model.score(out, targets, seen.reset, seen.weight, seen.drawn)
        return (total - seen.total) / given.divisor

    def _drawn(self, seen: Seen, model: LanguageModel, position: int) -> Tensor:
        targets = seen.targets
        if self.config.substitutes == "vocabulary":
            ids = torch.arange(model.vocab_size, device=targets.device)
        else:
            counted = targets if seen.weight is None else targets[seen.weight != 0]
            there = torch.zeros(model.vocab_size, dtype=torch.bool)
            there[counted.cpu().flatten()] = True
            ids = current().any(there).nonzero().squeeze(1).to(targets.device)  # of all columns of the run
        own = self.streams.by_rows()
        shape = (len(targets) // len(own), targets.shape[1], 2)
        generators = (one.generator(f"objective.{self.config.name}", position) for one in own)
        uniform = torch.cat([torch.rand(shape, generator=generator, dtype=torch.float64) for generator in generators])
        return substitute(targets, ids, self.config.tau, uniform.to(targets.device))


def chance(size: int, tau: float) -> float:
    """That a token is replaced, where there are ``size`` substitutes, the token itself among them."""
    others = (size - 1) * (math.exp(-1 / tau) if tau else 0.0)
    return others / (1 + others)


def substitute(targets: Tensor, ids: Tensor, tau: float, uniform: Tensor) -> Tensor:
    """A sequence drawn from r for each row.

    Args:
        targets: (rows, time). ids: (S,) distinct substitutes, ascending, with every target that counts.
        uniform: (rows, time, 2) numbers from [0, 1): whether, and by which.
    """
    size = len(ids)
    if size < 2:
        return targets
    place = torch.searchsorted(ids, targets.contiguous()).clamp(max=size - 1)
    other = (place + 1 + (uniform[..., 1] * (size - 1)).long().clamp(max=size - 2)) % size
    return torch.where(uniform[..., 0] < chance(size, tau), ids[other], targets)
