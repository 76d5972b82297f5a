"""Optimal transport between what is predicted and what follows."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from unrolled.core.random import RandomStreams
from unrolled.task import StepsTask
from unrolled.train.objectives.base import Extra, ExtraConfig, Given
from unrolled.train.objectives.logits import check_softmax, read
from unrolled.train.objectives.sequences import check_sequences, sequences_of

__all__ = ["Transport", "TransportConfig", "transport_plan"]


class TransportConfig(ExtraConfig):
    """Options of optimal transport."""

    name: Literal["transport"] = "transport"
    weight: float = Field(default=0.1, ge=0, le=1e6, description="times its value")
    proximity: float = Field(
        default=0.1,
        gt=0,
        le=1e6,
        description="b: how far a step of the iteration may go; smaller is nearer to the best",
    )
    iterations: int = Field(default=200, ge=1, le=10**6, description="N, steps of the iteration")
    temperature: float = Field(
        default=1.0, gt=0, le=1e6, description="divides the logits that the predicted embeddings are means by"
    )


class Transport(Extra):
    r"""Sequence-level optimal transport (Chen et al. 2019, by the iteration IPOT of Xie et al. 2018).

    Of each sequence, the cost of moving the predicted embeddings onto those of the targets, whatever their order:

    .. math::
        \min_T \sum_{ij} T_{ij} C_{ij}, \quad C_{ij} = 1 - \cos(\mathrm{softmax}(z_i/\tau) E, e_{y_j})

    over plans T whose rows and columns sum to the targets' weights, 1/n each where none are given. With A = exp(-C/b)
    and T = 1 at first, N times: Q = A T; d = p/(Q s); s = p/(Q' d); T = diag(d) Q diag(s). What its sums then lack is
    put right by rounding, so that T is a plan whatever N. It is held fixed in the gradient, which so is that of the
    minimum (envelope); the embeddings E are held fixed too, since making all tokens alike would lower every cost. The
    value is the mean over targets, each of which counts its sequence's cost.

    A sequence is a sentence or document, as far as the window has it, or a window of a stream without carried states.
    A reconstruction in two points, for which no released code was found: E is held fixed, and the temperature is 1
    where it is not set. The published b = 0.5, N = 50 end up to 2.5e-3 above the least cost (sequences of 20 in 16
    dimensions), the defaults here within 1e-4.

    Cost: one product of the head's size forwards and two more back, and N n² a sequence.

    Raises:
        UsageError: another head than the full softmax; a stream that is one uninterrupted text.
    """

    Config = TransportConfig
    EXAMPLES = (TransportConfig(), TransportConfig(weight=1.0, proximity=0.5, iterations=20, temperature=0.5))
    suits = {"stream": {"carry": False}}
    follows = False

    def __init__(self, config: TransportConfig, streams: RandomStreams, model: nn.Module):
        super().__init__(config, streams, model)
        check_softmax(model, config.name)

    def join(self, task: StepsTask) -> None:
        """See :meth:`Extra.join`."""
        check_sequences(task, self.config.name)

    def value(self, given: Given) -> Tensor:
        """See :meth:`Extra.value`."""
        seen, config = given.seen, self.config
        rows, time = seen.targets.shape
        vectors = seen.model.embedding.table().detach()  # type: ignore[operator, union-attr]
        predicted = normalize(self._expected(given, vectors), dim=1)
        wanted = normalize(vectors, dim=1)[seen.targets.flatten()]
        places, there = sequences_of(seen.reset, rows, time, predicted.device)
        weight = torch.ones(rows * time) if seen.weight is None else seen.weight.flatten()
        shares = torch.where(there, weight.to(predicted)[places], 0.0)
        counts = shares.sum(1, keepdim=True)
        cost = 1 - predicted[places] @ wanted[places].transpose(1, 2)
        shares = shares / torch.where(counts > 0, counts, torch.ones_like(counts))
        plan = transport_plan(cost.detach(), shares, shares, config.proximity, config.iterations)
        return ((plan * cost).sum((1, 2)) * counts.squeeze(1)).sum() / given.divisor

    def _expected(self, given: Given, vectors: Tensor) -> Tensor:
        """softmax(z / tau) E of every position, (rows * time, E); probabilities exist for some positions at once, in
        the backward pass too."""
        head, h = read(given)

        def mean(part: Tensor) -> Tensor:
            logits = head.linear(part, head.weight, head.scaled_bias)
            return torch.softmax(logits / self.config.temperature, -1) @ vectors

        block = max(1, head.config.block // head.vocab_size)
        parts: Any = h.flatten(0, 1).split(block)
        return torch.cat([checkpoint(mean, p, use_reentrant=False, preserve_rng_state=False) for p in parts])


@torch.no_grad()
def transport_plan(cost: Tensor, rows: Tensor, columns: Tensor, proximity: float, iterations: int) -> Tensor:
    """The plan that the iteration arrives at.

    Args:
        cost: (S, n, m). rows: (S, n) and columns: (S, m), each not negative with the sum 1, or 0 throughout; zeros are
            places that there are none of.
    Returns:
        (S, n, m); its rows sum to ``rows``, its columns to ``columns``.
    """
    near = torch.exp(-cost / proximity)
    plan, s = torch.ones_like(cost), columns.clone()
    for _ in range(iterations):
        q = near * plan
        d = _over(rows, (q @ s.unsqueeze(2)).squeeze(2))
        s = _over(columns, (d.unsqueeze(1) @ q).squeeze(1))
        plan = d.unsqueeze(2) * q * s.unsqueeze(1)
    return _rounded(plan, rows, columns)


def _rounded(plan: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The plan with the sums that it should have (Altschuler, Weed and Rigollet 2017): what is over is taken off, what
    is missing is spread evenly."""
    plan = plan * _over(rows, plan.sum(2)).clamp(max=1).unsqueeze(2)
    plan = plan * _over(columns, plan.sum(1)).clamp(max=1).unsqueeze(1)
    short, lacking = (rows - plan.sum(2)).clamp(min=0), (columns - plan.sum(1)).clamp(min=0)
    total = short.sum(1, keepdim=True)
    return plan + _over(short, total.expand_as(short)).unsqueeze(2) * lacking.unsqueeze(1)


def _over(one: Tensor, other: Tensor) -> Tensor:
    """one / other, and 0 where one is 0."""
    return torch.where(one > 0, one / torch.where(one > 0, other, torch.ones_like(other)), 0.0)
