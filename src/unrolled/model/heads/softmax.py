"""The softmax head, full or sampled in training."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.core.group import current
from unrolled.core.random import RandomStreams
from unrolled.kernels.softmax_loss import softmax_loss
from unrolled.model.heads.blocks import blockwise_loss
from unrolled.model.heads.matrix import MatrixConfig, MatrixHead

__all__ = ["SoftmaxConfig", "SoftmaxHead"]


class SoftmaxConfig(MatrixConfig):
    """Options of the softmax head."""

    name: Literal["softmax"] = "softmax"
    negatives: int | None = Field(
        default=None,
        ge=1,
        description="sampled softmax in training (Jean et al. 2015): tokens drawn per window from the less frequent "
        "ones (absent, or no fewer than there are: the full softmax); evaluation always uses the full softmax",
    )
    frequent: int = Field(
        default=1000, ge=0, description="most frequent tokens that every sampled softmax contains besides its targets"
    )
    sampler: Literal["uniform", "log_uniform"] = Field(
        default="uniform",
        description="how negatives are drawn: uniformly without replacement; or with replacement, the token of rank r "
        "in proportion to log((r + 2) / (r + 1)) (Jozefowicz et al. 2016), when many of them still leave some out",
    )
    cap: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="c of capped logits c tanh(z / c), which none exceeds (Gemma 2, xLSTM 7B; absent: as they are)",
    )


class SoftmaxMasks(NamedTuple):
    """What the head draws for a training window. projected: dropout mask (batch, 1 or time, E) on the projected
    output. negatives: (n,) ids drawn for the sampled softmax."""

    projected: Tensor | None
    negatives: Tensor | None


class SoftmaxHead(MatrixHead):
    """log p = log softmax(W P h + b), with the projection P where one is set or needed.

    Where ``cap`` is c, each logit z is c tanh(z / c) before it is tempered or corrected for sampling. Such losses are
    made by torch block by block, since the kernels of ``softmax_loss`` have plain logits.

    Args:
        in_width: width of h. vocab_size: V. tied: the embedding matrix (V, E) to share, or None.
    """

    Config = SoftmaxConfig
    has_logits = True
    EXAMPLES = (
        SoftmaxConfig(),
        SoftmaxConfig(project=4, bias=False),
        SoftmaxConfig(negatives=6, frequent=4, bias_init="unigram", init="orthogonal"),
        SoftmaxConfig(negatives=9, frequent=3, sampler="log_uniform"),
        SoftmaxConfig(cap=0.7, init_scale=3.0, project=4),
        SoftmaxConfig(cap=0.5, negatives=6, frequent=4, bias=False),
    )

    def __init__(self, in_width: int, vocab_size: int, config: SoftmaxConfig, tied: nn.Parameter | None = None):
        super().__init__(in_width, vocab_size, config, tied)
        self._frequent: Tensor | None = None
        self._rest: Tensor | None = None
        self._unigram = torch.empty(0)
        self.reset_parameters()

    @property
    def needs_counts(self) -> bool:
        """See :attr:`Head.needs_counts`."""
        return super().needs_counts or self.config.negatives is not None

    @torch.no_grad()
    def use_counts(self, counts: Tensor) -> None:
        """Set the bias where it starts from the counts, and rank the tokens for sampling."""
        super().use_counts(counts)
        if self.config.negatives is not None:
            order = counts.argsort(descending=True, stable=True)
            self._frequent, self._rest = order[: self.config.frequent], order[self.config.frequent :]
            p = (counts + 1).double()
            self._unigram = (p / p.sum()).to(self.weight.dtype)

    def draw_masks(
        self, batch: int, time: int, rate: float, per_step: bool, streams: RandomStreams, window: int
    ) -> SoftmaxMasks | None:
        """See :meth:`Head.draw_masks`."""
        projected, negatives = self.draw_projected(batch, time, rate, per_step, streams, window), None
        # in evaluation mode (Monte-Carlo dropout) the softmax is full
        count = self.config.negatives
        if self.training and count is not None and len(rest := self._ranked()[1]):
            generator = streams.generator("negatives", window)
            if self.config.sampler == "log_uniform":
                negatives = rest[torch.multinomial(self._by_rank(), count, replacement=True, generator=generator)]
            elif count < len(rest):
                negatives = rest[torch.randperm(len(rest), generator=generator)[:count]]
        return None if projected is None and negatives is None else SoftmaxMasks(projected, negatives)

    def _ranked(self) -> tuple[Tensor, Tensor]:
        if self._frequent is None or self._rest is None:
            raise UsageError("the sampled softmax needs token counts; call head.use_counts(counts) before training.")
        return self._frequent, self._rest

    def _by_rank(self) -> Tensor:
        """Log-uniform probabilities (r,) of the tokens that are drawn from, the most frequent of them first."""
        ranks = torch.arange(len(self._ranked()[0]), self.vocab_size, dtype=torch.float64)
        p = torch.log1p(1 / (ranks + 1))
        return p / p.sum()

    def _candidates(self, targets: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Ids of this window's softmax (n,), the targets as positions in them, and the log of each id's probability
        of being among them: 0 for the frequent ones, else 1 - (1 - k/r)(1 - p)^tokens for k drawn of r uniformly, and
        (1 - q)^k in place of 1 - k/r for k draws with replacement by q."""
        frequent, rest = self._ranked()
        included = torch.zeros(self.vocab_size, dtype=torch.bool)
        for ids in (frequent, negatives, targets.cpu()):
            included[ids] = True
        group = current()
        included, tokens = group.any(included), len(targets) * group.world  # the window's, of all its columns
        ids = included.nonzero().squeeze(1)
        missed = (1 - self._unigram).pow(tokens)
        if self.config.sampler == "log_uniform":
            missed[rest] *= (1 - self._by_rank()).pow(len(negatives)).to(missed.dtype)
        else:
            missed *= 1 - len(negatives) / len(rest)
        log_chance = (1 - missed).log()
        log_chance[frequent] = 0
        places = included.cumsum(0) - 1
        device = targets.device
        return ids.to(device), places[targets.cpu()].to(device), log_chance[ids].to(device)

    def loss(
        self,
        h: Tensor,
        targets: Tensor,
        weight: Tensor | None = None,
        state: None = None,
        reset: Tensor | None = None,
        masks: SoftmaxMasks | None = None,
    ) -> tuple[Tensor, Tensor, None]:
        """See :meth:`Head.loss`; with drawn negatives the sum and the nats are those of the sampled softmax, an
        estimate of the full one."""
        h = self._read(h, masks)
        turned = h.stride(0) < h.stride(1)  # time-major in memory: so it flattens without a copy
        if turned:
            h, targets, weight = h.transpose(0, 1), targets.t(), None if weight is None else weight.t()
        flat, matrix, bias, shift = targets.flatten(), self.weight, self.bias_now(), None
        bias = bias if bias is None or self.config.cap is not None else self.scaled(bias)
        if masks is not None and masks.negatives is not None:
            ids, flat, shift = self._candidates(flat, masks.negatives)
            matrix, bias = matrix[ids], None if bias is None else bias[ids]
        each = None if weight is None else weight.flatten().to(h.dtype)
        if self.config.cap is None:
            total, nll = softmax_loss(h.flatten(0, 1), matrix, bias, flat, each, shift, **self.loss_options)
        else:
            total, nll = self._capped_loss(h.flatten(0, 1), matrix, bias, flat, each, shift)
        nll = nll.view_as(targets)
        return total, nll.t() if turned else nll, None

    def log_prob(self, h: Tensor, state: None = None, masks: SoftmaxMasks | None = None) -> tuple[Tensor, None]:
        """See :meth:`Head.log_prob`; always the full softmax."""
        return torch.log_softmax(self._logits(self._read(h, masks)), -1), None

    def logits(self, h: Tensor) -> Tensor:
        """See :meth:`Head.logits`."""
        return self._logits(self._read(h, None))

    def _logits(self, h: Tensor) -> Tensor:
        if self.config.cap is None:
            return self.linear(h, self.weight, self.scaled_bias)
        return self.capped(self.linear(h, self.weight, self.bias_now()))

    def capped(self, logits: Tensor) -> Tensor:
        """Logits (..., V) under the cap, where there is one, times ``logit_scale``."""
        cap = self.config.cap
        return self.scaled(logits if cap is None else cap * torch.tanh(logits / cap))

    def _read(self, h: Tensor, masks: SoftmaxMasks | None) -> Tensor:
        """What the matrix multiplies; with a cap the temperature comes after it."""
        return self.project(h, None if masks is None else masks.projected, scaled=self.config.cap is None)

    def _capped_loss(
        self,
        h: Tensor,
        matrix: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        weight: Tensor | None,
        shift: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """As ``softmax_loss``. Raises UsageError where another backend than torch's operations is asked for."""
        if (wish := self.compute.wish("softmax_loss")) not in ("auto", "reference"):
            raise UsageError(
                f"the backend {wish} of softmax_loss has no capped logits; ask for auto, or set no head.cap."
            )

        def nats(inputs: Sequence[Tensor], ids: Tensor, parameters: Sequence[Tensor]) -> Tensor:
            own = parameters[1] if bias is not None else None
            logits, aimed = self.capped(self.linear(inputs[0], parameters[0], own)), ids.unsqueeze(1)
            if shift is not None:
                logits = (logits - shift.to(logits.dtype)).scatter_add(1, aimed, shift.to(logits.dtype)[aimed])
            return -torch.log_softmax(logits, 1).gather(1, aimed).squeeze(1)

        parameters = [matrix] if bias is None else [matrix, bias]
        return blockwise_loss(nats, [h], targets, parameters, weight, self.config.block // len(matrix))
