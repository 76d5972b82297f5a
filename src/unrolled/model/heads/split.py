"""Tied split softmax."""

import itertools
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.kernels.softmax_loss import softmax_loss
from unrolled.model.heads.frequency import check_cuts, check_frequency_order
from unrolled.model.heads.matrix import MatrixConfig, MatrixHead

__all__ = ["SplitConfig", "SplitHead"]

# vocabulary above which the cuts apply, and the cuts, as published
_PUBLISHED = ((500_000, (4_200, 35_000, 180_000)), (75_000, (2_800, 20_000, 76_000)))


class SplitConfig(MatrixConfig):
    """Options of the split softmax."""

    name: Literal["split"] = "split"
    cuts: tuple[int, ...] | None = Field(
        default=None,
        description="first id of each tail (absent: 2800, 20000, 76000 above 75,000 ids; 4200, 35000, 180000 above "
        "500,000; none, which is the softmax, for fewer)",
    )


class SplitHead(MatrixHead):
    r"""Softmax over the frequent ids and one *tombstone* per tail of rarer ids, and a softmax within each tail
    (Merity, Keskar and Socher 2018; an adaptive softmax whose tails share the tied matrix in full width).

    .. math:: \log p(w) = \log p(\text{tombstone}_k \mid \text{head}) + \log p(w \mid \text{tail}_k)

    Exact in training and evaluation, and cheap in training because a row computes the one tail of its target.
    Tombstones are vectors and biases of their own, zero at the start. Ids must fall in frequency. Columns of the
    head: the frequent ids, then the tombstones in the order of ``tail_vectors``, whose last belongs to the first tail,
    as published.
    """

    Config = SplitConfig
    EXAMPLES = (
        SplitConfig(cuts=(7, 15)),
        SplitConfig(cuts=(1,), project=4),
        SplitConfig(cuts=(), init="orthogonal"),
        SplitConfig(cuts=(4, 5, 20), bias=False),
        SplitConfig(cuts=(12,), bias_init="unigram"),
    )

    def __init__(self, in_width: int, vocab_size: int, config: SplitConfig, tied: nn.Parameter | None = None):
        super().__init__(in_width, vocab_size, config, tied)
        published = next((cuts for least, cuts in _PUBLISHED if vocab_size > least), ())
        self.cuts = check_cuts("cuts", published if config.cuts is None else config.cuts, vocab_size)
        if self.cuts:
            self.tail_vectors = nn.Parameter(torch.zeros(len(self.cuts), self.weight.shape[1]))
            self.tail_bias = nn.Parameter(torch.zeros(len(self.cuts)))
        self.reset_parameters()

    @property
    def needs_counts(self) -> bool:
        """See :attr:`Head.needs_counts`."""
        return super().needs_counts or bool(self.cuts)

    def use_counts(self, counts: Tensor) -> None:
        """Refuse ids that do not fall in frequency."""
        super().use_counts(counts)
        check_frequency_order("split", self.cuts, counts)

    def _parts(self) -> tuple[list[Tensor], list[Tensor | None]]:
        """Matrix and bias of the head, with its tombstones, and of each tail."""
        borders = [0, *self.cuts, self.vocab_size]
        sizes = [high - low for low, high in itertools.pairwise(borders)]
        matrices = list(self.weight.split(sizes))
        biases: list[Tensor | None] = [None] * len(sizes)
        if (bias := self.scaled_bias) is not None:
            biases = list(bias.split(sizes))
        if self.cuts:
            matrices[0] = torch.cat([matrices[0], self.tail_vectors])
            first = self.weight.new_zeros(sizes[0]) if biases[0] is None else biases[0]
            biases[0] = torch.cat([first, self.scaled(self.tail_bias)])
        return matrices, biases

    def _tombstone(self, tail: int) -> int:
        """Column in the head of a tail, counted from 1."""
        return self.cuts[0] + len(self.cuts) - tail

    def loss(
        self,
        h: Tensor,
        targets: Tensor,
        weight: Tensor | None = None,
        state: None = None,
        reset: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, None]:
        """See :meth:`Head.loss`."""
        rows, flat = self.project(h, masks).flatten(0, 1), targets.flatten()
        each = None if weight is None else weight.flatten().to(h.dtype)
        matrices, biases = self._parts()
        cluster = torch.bucketize(flat.contiguous(), torch.tensor(self.cuts, device=flat.device), right=True)
        columns = flat
        for tail in range(1, len(matrices)):
            columns = columns.masked_fill(cluster == tail, self._tombstone(tail))
        options = self.loss_options
        total, nll = softmax_loss(rows, matrices[0], biases[0], columns, each, **options)
        for tail in range(1, len(matrices)):
            found = (cluster == tail).nonzero().squeeze(1)
            if len(found):
                inner = flat[found] - self.cuts[tail - 1]
                part = None if each is None else each[found]
                more, nats = softmax_loss(rows[found], matrices[tail], biases[tail], inner, part, **options)
                total, nll = total + more, nll.index_add(0, found, nats)
        return total, nll.view_as(targets), None

    def log_prob(self, h: Tensor, state: None = None, masks: Tensor | None = None) -> tuple[Tensor, None]:
        """See :meth:`Head.log_prob`."""
        h = self.project(h, masks)
        matrices, biases = self._parts()
        first, *tails = (
            torch.log_softmax(self.linear(h, matrix, bias), -1) for matrix, bias in zip(matrices, biases, strict=True)
        )
        if not tails:
            return first, None
        stones = [first[..., self._tombstone(tail) : self._tombstone(tail) + 1] for tail in range(1, len(matrices))]
        inner = [stone + tail for stone, tail in zip(stones, tails, strict=True)]
        return torch.cat([first[..., : self.cuts[0]], *inner], -1), None
