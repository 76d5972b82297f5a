"""A softmax whose end symbol grows certain, so that every decoding stops."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from unrolled.core.errors import UsageError
from unrolled.model.heads.blocks import blockwise_loss
from unrolled.model.heads.matrix import MatrixConfig, MatrixHead

__all__ = ["TerminatingConfig", "TerminatingHead", "TerminatingState"]


class TerminatingConfig(MatrixConfig):
    """Options of the self-terminating head."""

    name: Literal["terminating"] = "terminating"
    epsilon: float = Field(
        default=1e-4,
        ge=1e-12,
        lt=1,
        description="e: after t tokens of a text the end symbol has at least 1 - (1 - e)^t; it passes a half at "
        "t = 0.69 / e",
    )
    end: int | None = Field(
        default=None, ge=0, description="id of the end symbol (absent: the tokenizer's; it is kept in the run)"
    )

    def with_end(self, end: int | None) -> Self:
        """See :meth:`HeadConfig.with_end`. Raises UsageError where there is no end symbol."""
        if self.end is None and end is None:
            raise UsageError(
                "the head terminating needs an end symbol and this tokenizer has none; take tokenizer word, bpe or "
                "unigram, or name the id of a symbol that ends a text as head.end."
            )
        return self if self.end is not None else self.model_copy(update={"end": end})


class TerminatingState(NamedTuple):
    """count: (batch, 1) int64, tokens of the text so far, without those before its beginning or the last end symbol."""

    count: Tensor


class TerminatingHead(MatrixHead):
    r"""Non-monotonic self-terminating language model (Choi, Cho and Lee 2023).

    .. math::
        q_t &= (1 - \sigma(z_{\text{end}})) (1 - \epsilon)^t, \quad z = W P h + b \\
        p(\text{end}) &= 1 - q_t, \qquad p(w) = q_t \operatorname{softmax}(z_{v \neq \text{end}})_w

    t is 1 at the first token of a text, and again after each end symbol and at a reset. So p(end) has a lower bound
    that rises to 1, and may still rise and fall above it; any decoding that keeps the most probable token stops. The
    count is carried from window to window. A temperature acts on the softmax over the other tokens alone, since it
    would sharpen the bound away. The end symbol stays where it is, while the authors' code moves it to the last column.

    Raises:
        UsageError: at the first use, where no end symbol is known; or one outside the vocabulary.
    """

    Config = TerminatingConfig
    EXAMPLES = (
        TerminatingConfig(epsilon=0.02, end=2),
        TerminatingConfig(epsilon=0.1, end=0, bias=False, project=4),
        TerminatingConfig(end=1, bias_init="unigram", init="orthogonal", init_scale=2.0),
    )

    def __init__(self, in_width: int, vocab_size: int, config: TerminatingConfig, tied: nn.Parameter | None = None):
        super().__init__(in_width, vocab_size, config, tied)
        if config.end is not None and config.end >= vocab_size:
            raise UsageError(f"head.end is {config.end}, outside the {vocab_size:,} ids of the vocabulary.")
        self._log_rest = math.log1p(-config.epsilon)
        self.reset_parameters()

    @property
    def end(self) -> int:
        """Id of the end symbol."""
        if self.config.end is None:
            raise UsageError("the head terminating does not know the end symbol; set head.end to its id.")
        return self.config.end

    @torch.no_grad()
    def use_counts(self, counts: Tensor) -> None:
        """As :class:`MatrixHead`; the end symbol's sigmoid begins at its frequency too."""
        super().use_counts(counts)
        if self.bias is not None and self.config.bias_init == "unigram":
            p = (counts + 1).double()
            self.bias[self.end] = torch.logit(p[self.end] / p.sum())

    def initial_state(self, batch: int, device: Any = None, dtype: Any = None) -> TerminatingState:
        """A text that begins."""
        return TerminatingState(torch.zeros(batch, 1, device=device, dtype=torch.int64))

    def learn(self, h: Tensor, ids: Tensor, state: TerminatingState) -> TerminatingState:
        """See :meth:`Head.learn`."""
        return TerminatingState((state.count + 1) * (ids != self.end).unsqueeze(1))

    def _places(
        self, targets: Tensor, state: TerminatingState | None, reset: Tensor | None
    ) -> tuple[Tensor, TerminatingState]:
        """t of every position (batch, time), from 1, and the new state."""
        batch, time = targets.shape
        places = torch.arange(time, device=targets.device).expand(batch, time)
        ends = targets == self.end
        begins = torch.cat([torch.zeros_like(ends[:, :1]), ends[:, :-1]], 1)
        begins = begins if reset is None else begins | reset
        count = torch.zeros_like(targets[:, :1]) if state is None else state.count
        # where the text that a position is in began: before the window, or at the last beginning in it
        began = torch.where(begins, places, -1)
        began = torch.cat([torch.where(begins[:, :1], 0, -count), began[:, 1:]], 1)
        first = began[:, :1]
        began = torch.where(begins.cumsum(1) > 0, began.cummax(1).values, first)
        places = places - began + 1
        return places, TerminatingState(places[:, -1:] * ~ends[:, -1:])

    def _parts(self, h: Tensor, log_rest: Tensor, matrix: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """log q (n,) and the logits of the tokens (n, V), tempered, that of the end symbol minus infinity."""
        logits = self.linear(h, matrix, bias)
        going_on = logsigmoid(-logits[..., self.end]) + log_rest
        place = torch.tensor([self.end], device=logits.device)
        return going_on, self.scaled(logits).index_fill(-1, place, -torch.inf)

    def _nll(self, inputs: Sequence[Tensor], targets: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        (h, log_rest), bias = inputs, parameters[1] if len(parameters) > 1 else None
        going_on, logits = self._parts(h, log_rest, parameters[0], bias)
        chosen = logits.gather(1, targets.unsqueeze(1)).squeeze(1) - logits.logsumexp(1)
        return -torch.where(targets == self.end, _log_other(going_on), going_on + chosen)

    def loss(
        self,
        h: Tensor,
        targets: Tensor,
        weight: Tensor | None = None,
        state: TerminatingState | None = None,
        reset: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, TerminatingState]:
        """See :meth:`Head.loss`; targets of weight 0 count as tokens of the text."""
        places, new = self._places(targets, state, reset)
        log_rest = places.to(h.dtype) * self._log_rest
        inputs = [self.project(h, masks, scaled=False).flatten(0, 1), log_rest.flatten()]
        parameters = [p for p in (self.weight, self.bias) if p is not None]
        each = None if weight is None else weight.flatten().to(h.dtype)
        rows = self.config.block // self.vocab_size
        total, nll = blockwise_loss(self._nll, inputs, targets.flatten(), parameters, each, rows)
        return total, nll.view_as(targets), new

    def log_prob(
        self, h: Tensor, state: TerminatingState | None = None, masks: Tensor | None = None
    ) -> tuple[Tensor, TerminatingState | None]:
        """See :meth:`Head.log_prob`; h is (batch, in_width), or any shape without a state: then each begins a text."""
        count = h.new_zeros(h.shape[:-1]) if state is None else state.count.squeeze(1).to(h.dtype)
        h = self.project(h, masks, scaled=False)
        going_on, logits = self._parts(h, (count + 1) * self._log_rest, self.weight, self.bias)
        others = going_on.unsqueeze(-1) + torch.log_softmax(logits, -1)
        place = torch.arange(self.vocab_size, device=h.device) == self.end
        return torch.where(place, _log_other(going_on).unsqueeze(-1), others), state


def _log_other(log_p: Tensor) -> Tensor:
    """log(1 - p) for p below 1, exact where p is near 1."""
    return (-torch.expm1(log_p)).log()
