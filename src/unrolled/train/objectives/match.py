"""Matching of the texts that a model writes with those that it reads, with a backspace among its tokens."""

from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unrolled.core.errors import UsageError
from unrolled.core.group import current
from unrolled.core.random import RandomStreams
from unrolled.data import TokenSplit
from unrolled.generate.config import token_of
from unrolled.task import Seen, StepsTask
from unrolled.tokenizer import Tokenizer
from unrolled.train.objectives.base import Extra, ExtraConfig, Given
from unrolled.train.objectives.logits import check_softmax, read
from unrolled.train.objectives.sequences import check_sequences, sequences_of
from unrolled.train.objectives.walk import walk

__all__ = ["Match", "MatchConfig", "Steps", "matching"]


_BLOCK = 1 << 20


class MatchConfig(ExtraConfig):
    """Options of SequenceMatch."""

    name: Literal["match"] = "match"
    weight: float = Field(
        default=1.0, ge=0, le=1, description="share of the loss that it has (1: no cross-entropy is left)"
    )
    discount: float = Field(default=0.99, gt=0, le=1, description="g: what each token further on counts less")
    alpha: float | None = Field(
        default=0.5,
        gt=0,
        le=1e6,
        description="of the chi-square divergence; smaller holds rewards nearer 0; null: no part",
    )
    own: float = Field(
        default=0.5, ge=0, lt=1, description="share of the model's own texts in the mixture (0: the text alone)"
    )
    samples: int = Field(default=4, ge=1, le=10**6, description="own texts of a step")
    length: int = Field(default=32, ge=1, le=10**6, description="tokens that each of them is drawn, backspaces too")
    backspace: Annotated[int, Field(ge=0)] | str = Field(
        default="\b",
        description="takes the last token back: a text of one token, or an id; the training text must not have it",
    )
    end: int | None = Field(
        default=None,
        ge=0,
        description="id that ends an own text; absent: the tokenizer's, where the backspace is a text",
    )


class Steps(NamedTuple):
    """Steps of texts. logit: l(a|s) of the token that came. value: V(s). after: V of the state after it, 0 where the
    text has ended. weight: of each, not normalised."""

    logit: Tensor
    value: Tensor
    after: Tensor
    weight: Tensor


class Match(Extra):
    r"""SequenceMatch (Cundy and Ermon 2023, arXiv 2306.05426): imitation of whole texts in place of single tokens.

    A state is the text so far, an action the next token. The head's logits l are action values, and

    .. math::
        V(s) &= \log \sum_a e^{l(a|s)}, \quad r_i = l(x_{i+1}|s_i) - \gamma V(s_{i+1}) \\
        \mathcal{L} &= -E_D[r] + E_M[V(s_i) - \gamma V(s_{i+1})] + \tfrac{1}{4\alpha} E_M[r^2]

    D being the text, M the mixture of the text and of texts that the model itself writes, in which one token takes the
    last one back: the state after it is the one before that token, and at a text's beginning it stays. Expectations
    count step i of a text :math:`\gamma^i`, normalised. Without own texts and without :math:`\alpha` the loss is the
    cross-entropy, discounted. The loss of a step is (1-a) CE + a L, and the value the difference.

    **A reconstruction**: neither code nor equations of the paper could be had. The form is that of IQ-Learn (Garg et
    al. 2021) as we know it, with these three parts, the chi-square form, and the value 0 of an ended text; that
    both divergences are about the even mixture, and what a backspace does, is known from the paper's abstract and
    summaries. Own here, for want of the text: own texts come from the model as it is in every step, without dropout and
    without a replay buffer; texts that a window's border cuts begin and end there, and the last step of one that is cut
    is left out, since the value after it is not known; the text is given no artificial mistakes.

    Cost: the training text is looked through once, for the backspace. In a step one product of the head's size forwards
    and two more back, and ``length`` single steps of ``samples`` rows.

    Raises:
        UsageError: another head than the full softmax; a stream that is one uninterrupted text; no such token; one that
            the training text has.
    """

    Config = MatchConfig
    EXAMPLES = (
        MatchConfig(backspace=8, samples=2, length=6),
        MatchConfig(backspace=8, end=10, own=0.3, alpha=2.0, discount=0.8, weight=0.4, samples=3, length=4),
        MatchConfig(backspace=8, own=0.0, alpha=None, discount=1.0, weight=0.5),
    )
    suits = {"stream": {"carry": False}, "tokenizer": {"name": "byte"}}

    def __init__(self, config: MatchConfig, streams: RandomStreams, model: nn.Module):
        super().__init__(config, streams, model)
        check_softmax(model, config.name)
        self._id = config.backspace if isinstance(config.backspace, int) else -1
        self._end = config.end
        if self._id >= model.vocab_size:  # type: ignore[operator]
            raise UsageError(
                f"the backspace of match is id {self._id}, and there are {model.vocab_size} ids; lower it."
            )

    def join(self, task: StepsTask) -> None:
        """See :meth:`Extra.join`."""
        check_sequences(task, self.config.name)
        if isinstance(self.config.backspace, str):
            tokenizer: Any = task.tokenizer
            if tokenizer is None:
                raise UsageError(f"{task.noun} reads no text; give the backspace of match as an id.")
            self._id = token_of(self.config.backspace, tokenizer)
            self._end = tokenizer.end_id if self._end is None else self._end
        split = task.splits.get("train")
        if isinstance(split, TokenSplit) and task.tokenizer is not None:
            _check_unused(split, self._id, task.tokenizer)

    def value(self, given: Given) -> Tensor:
        """See :meth:`Extra.value`."""
        seen, config = given.seen, self.config
        if bool((seen.targets == self._id).any()):  # as a smoothing may draw it
            raise UsageError(
                f"a batch has id {self._id}, which is the backspace of match; choose another token, or leave out what "
                "changes the targets."
            )
        data = self._of_text(given)
        own = self._of_own(seen, given.position) if config.own else None
        loss = matching(data, own, config.discount, config.alpha, config.own)
        weight = seen.weight
        whole = loss.new_tensor(float(seen.targets.numel())) if weight is None else weight.to(loss.dtype).sum()
        return loss * whole / given.divisor - seen.total / given.divisor

    def _of_text(self, given: Given) -> Steps:
        """Each position of the window as a step, (rows, time)."""
        seen = given.seen
        head, h = read(given)
        rows, time = seen.targets.shape

        def both(part: Tensor, targets: Tensor) -> Tensor:
            logits = head.linear(part, head.weight, head.scaled_bias)
            return torch.stack([logits.gather(1, targets.unsqueeze(1)).squeeze(1), logits.logsumexp(1)])

        block = max(1, head.config.block // head.vocab_size)
        pairs = zip(h.flatten(0, 1).split(block), seen.targets.flatten().split(block), strict=True)
        parts: Any = [checkpoint(both, *pair, use_reentrant=False, preserve_rng_state=False) for pair in pairs]
        logit, value = torch.cat(parts, 1).unflatten(1, (rows, time))
        places, there = sequences_of(seen.reset, rows, time, h.device)
        count = torch.zeros(rows * time, dtype=torch.int64, device=h.device)
        count[places[there]] = torch.arange(there.shape[1], device=h.device).expand_as(there)[there]
        weight = self.config.discount ** count.view(rows, time).to(value.dtype)
        if seen.weight is not None:
            weight = weight * seen.weight.to(weight)
        ends = torch.zeros(rows, time, dtype=torch.bool, device=h.device)
        if seen.reset is not None:
            ends[:, :-1] = seen.reset[:, 1:]
        after = torch.cat([value[:, 1:], torch.zeros_like(value[:, :1])], 1).masked_fill(ends, 0.0)
        known = torch.ones_like(weight)
        if self._needs_after():
            known[:, -1] = 0
        return Steps(logit, value, after, weight * known)

    def _needs_after(self) -> bool:
        """Whether the value after a step matters: it cancels where nothing but the text counts."""
        return bool(self.config.own) or self.config.alpha is not None

    def _of_own(self, seen: Seen, position: int) -> Steps:
        """Own texts, (samples, length); they begin as texts of the window do."""
        config, model = self.config, seen.model
        begins = torch.zeros_like(seen.targets, dtype=torch.bool) if seen.reset is None else seen.reset.clone()
        begins[:, 0] = True
        if seen.weight is not None:
            begins = begins & (seen.weight != 0)
        first = seen.batch.inputs[begins]
        generator = self.streams.generator(f"objective.{config.name}", position)
        uniform = torch.rand(config.samples, config.length + 1, generator=generator, dtype=torch.float64)
        if not len(first):
            empty = seen.total.new_zeros(config.samples, config.length)
            return Steps(empty, empty, empty, empty)
        first = first[(uniform[:, 0] * len(first)).long().to(first.device)]
        found = walk(model, first, self._id, self._end, uniform=uniform[:, 1:])
        weight = config.discount ** torch.arange(config.length, device=first.device).to(found.value.dtype)
        return Steps(found.logit, found.value, found.after, weight * found.going.to(weight))


def _check_unused(split: TokenSplit, backspace: int, tokenizer: Tokenizer) -> None:
    """Raises UsageError for a backspace that the training text has; names an id that it has not."""
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for start in range(0, len(split), _BLOCK):
        counts += np.bincount(split.ids(start, start + _BLOCK), minlength=len(counts))
    if not counts[backspace]:
        return
    unused = np.flatnonzero(counts == 0)
    remedy = f"such as id {unused[0]}" if len(unused) else 'for which tokenizer.name = "byte" has room'
    raise UsageError(
        f"the training text has {tokenizer.token(backspace)!r} (id {backspace}) {counts[backspace]:,} times, and it is "
        f"the backspace of match; choose a token that the text has not, {remedy}."
    )


def matching(data: Steps, own: Steps | None, discount: float, alpha: float | None, share: float) -> Tensor:
    """The loss L of :class:`Match`.

    Args:
        data: steps of the text. own: steps of the model's texts; None where ``share``, theirs of the mixture, is 0.
        alpha: None leaves the chi-square part out.
    """

    def parts(steps: Steps) -> tuple[Tensor, Tensor, Tensor]:
        reward = steps.logit - discount * steps.after
        whole = current().mean(steps.weight.sum())
        weight = steps.weight / torch.where(whole > 0, whole, torch.ones_like(whole))
        flow = (weight * (steps.value - discount * steps.after)).sum()
        return (weight * reward).sum(), flow, (weight * reward.square()).sum()

    reward, flow, square = parts(data)
    if own is not None:
        _, own_flow, own_square = parts(own)
        flow, square = (1 - share) * flow + share * own_flow, (1 - share) * square + share * own_square
    loss = flow - reward
    return loss if alpha is None else loss + square / (4 * alpha)
