"""The texts of highest score: beam search, plain and diverse."""

import copy
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.tree import map_tree, select_rows
from unrolled.generate.branch import Branch, Hypothesis, begin, distribution
from unrolled.generate.config import SamplerConfig
from unrolled.generate.constraints import Constraint
from unrolled.generate.given import Condition
from unrolled.generate.row import FinishReason
from unrolled.generate.sampler import changed_by
from unrolled.predict import KeptState, Predictor
from unrolled.tokenizer import Tokenizer

__all__ = ["BeamConfig", "beam_search"]


class BeamConfig(Config):
    """Options of beam search."""

    beams: int = Field(default=4, ge=1, description="texts under way, all groups together")
    nbest: int = Field(default=1, ge=1, description="texts that come back, of each group")
    length: float = Field(default=1.0, description="exponent of the number of tokens that a text's sum is divided by")
    stop_early: Literal["bound", "first"] = Field(
        default="bound",
        description="stop when no text under way can come among the best (bound), or when as many texts as beams are "
        "finished (first)",
    )
    groups: int = Field(default=1, ge=1, description="groups that are kept different; beams are divided among them")
    diversity: float = Field(
        default=0.0, ge=0, description="taken off a token once for each row of the groups before that takes it now"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "BeamConfig":
        if self.beams % self.groups:
            raise UsageError(
                f"{self.beams} beams cannot be divided into {self.groups} equal groups; change one of them."
            )
        if self.nbest > self.beams // self.groups:
            raise UsageError(
                f"of {self.beams // self.groups} beams (of a group) no {self.nbest} texts come back; raise beams."
            )
        return self


class _Given(NamedTuple):
    """A condition, the state of the beams that it looks at, and the most tokens of a text."""

    condition: Condition
    state: Any
    most: int

    def rank(self, scores: Tensor, beams: Sequence[Branch], size: int) -> Tensor:
        return self.condition.rank(scores, beams, self.state, self.most, size)

    def admits(self, tokens: Sequence[int]) -> bool:
        return self.condition.admits(tokens)


class _Group:
    """Beams that compete with each other, and the texts that they finished. falls: whether sums can only fall."""

    def __init__(self, number: int, size: int, config: BeamConfig, first: Branch, falls: bool):
        self.number, self.size, self.config, self.falls = number, size, config, falls
        self.beams = [first]
        self.rows = [number]  # of the batch: those that the beams go on from
        self.pool: list[Hypothesis] = []

    def finish(self, beam: Branch, reason: FinishReason) -> None:
        score = beam.total / len(beam.tokens) ** self.config.length
        self.pool.append(Hypothesis(beam.text, beam.tokens, beam.log_prob, score, reason, self.number))
        self.pool.sort(key=lambda one: -one.score)  # stable: of equal ones the first stays before
        del self.pool[self.size :]

    def step(self, log_prob: Tensor, plain: Tensor, penalty: Tensor, given: _Given | None = None) -> list[int]:
        """One token more for every beam.

        Args:
            log_prob: (beams, V) by which tokens are ranked, plain: (beams, V) of the model. penalty: (V,) for what the
                groups before chose now. given: what a text must come to.
        Returns:
            what the beams chose that go on.
        """
        totals = torch.tensor([beam.total for beam in self.beams], dtype=torch.float64)
        scores = totals.unsqueeze(1) + log_prob.double() - penalty
        grown: list[Branch] = []
        rows: list[int] = []
        ranked = scores if given is None else given.rank(scores, self.beams, self.size)
        for order, (place, token, _) in enumerate(_best(ranked, 2 * self.size)):
            beam, total = self.beams[place], float(scores[place, token])
            made, reason = beam.grown(token, total, beam.log_prob + float(plain[place, token]))
            if reason is None or reason == "length":
                grown.append(made)
                rows.append(place)
                if len(grown) == self.size:
                    break
            elif order < self.size and (given is None or given.admits(made.tokens)):
                self.finish(made, reason)
        self.rows = [self.rows[place] for place in rows]
        self.beams = grown
        return [beam.tokens[-1] for beam in grown]

    def done(self, most: int) -> bool:
        """Whether no more has to be tried."""
        if not self.beams:
            return True
        if self.config.stop_early == "first":
            return len(self.pool) == self.size
        if len(self.pool) < self.config.nbest or not self.falls:
            return False
        best = max(beam.total for beam in self.beams)
        tokens = most if self.config.length > 0 else len(self.beams[0].tokens)
        return best / max(1, tokens) ** self.config.length <= self.pool[self.config.nbest - 1].score


def beam_search(
    predictor: Predictor,
    tokenizer: Tokenizer,
    prompt: str = "",
    max_tokens: int = 200,
    config: BeamConfig | None = None,
    sampler: SamplerConfig | None = None,
    stop: Sequence[str] = (),
    state: KeptState | None = None,
    constraint: Constraint | None = None,
    condition: Condition | None = None,
) -> list[Hypothesis]:
    """The texts of highest score that beam search finds, the best first, group by group.

    Each step takes the 2B best of all (row, token); of those that end a text the ones among the first B count, and the
    first B others go on. The length of a text is that of what is generated, with its end symbol and without the prompt.
    A text's sum only falls (unless a bias is positive, or a penalty negative), which bounds what those under way can
    reach. Of equal scores the lower row comes first, then the lower id.

    Args:
        sampler: its bias, penalties, ``no_repeat`` and constraint change the scores; temperature, filters and seed do
            not.
        stop: strings that end a text. state: what the prompt goes on from. constraint: in place of the sampler's, where
            it was made already. condition: what a text must come to, see :class:`unrolled.generate.given.Condition`.
    Raises:
        UsageError: as :func:`unrolled.generate.stream`; no text is left.
    Sources:
        groups: diverse beam search, Vijayakumar et al. 2018; the penalty stays in the score.
    """
    config, sampler = config or BeamConfig(), sampler or SamplerConfig()
    begun = begin(predictor, tokenizer, prompt, max_tokens, sampler, stop, state, constraint)
    size = config.beams // config.groups
    groups = [_Group(number, size, config, copy.copy(begun.branch), begun.falls) for number in range(config.groups)]
    states = map_tree(lambda value: value.repeat_interleave(config.groups, 0), begun.state)
    return _search(predictor, states, groups, max_tokens, sampler, condition)


def _search(
    predictor: Predictor,
    state: Any,
    groups: list[_Group],
    max_tokens: int,
    sampler: SamplerConfig,
    condition: Condition | None,
) -> list[Hypothesis]:
    going, refusal = groups, None
    for count in range(1, max_tokens + 1):
        log_prob = distribution(predictor, state)
        penalty = log_prob.new_zeros(log_prob.shape[1])
        low = 0
        for group in going:
            part = log_prob[low : low + len(group.beams)]
            group.rows = list(range(low, low + len(group.beams)))
            low += len(group.beams)
            histories = [beam.history for beam in group.beams if beam.history is not None] or None
            ranked = changed_by(part, sampler, histories)
            if histories is not None:
                for place in ranked.amax(-1).isneginf().nonzero().squeeze(1).tolist():
                    refusal = histories[place].refusal()
            given = None
            if condition is not None:
                given = _Given(condition, select_rows(state, torch.tensor(group.rows)), max_tokens)
            for token in group.step(ranked, part, penalty, given):
                penalty[token] += group.config.diversity
        if count == max_tokens:
            for group in going:
                for beam in group.beams:
                    if condition is not None and not condition.admits(beam.tokens):
                        continue
                    text, _ = beam.row.finish()
                    beam.text += text
                    group.finish(beam, "length")
            break
        going = [group for group in going if not group.done(max_tokens)]
        if not going:
            break
        rows = torch.tensor([row for group in going for row in group.rows])
        tokens = torch.tensor([beam.tokens[-1] for group in going for beam in group.beams])
        state = predictor.observe(select_rows(state, rows), tokens.to(predictor.device))
    found = [one for group in groups for one in group.pool[: group.config.nbest]]
    if not found:
        raise refusal or UsageError("no text is left to be said; loosen what is forbidden.")
    return found


def _best(scores: Tensor, count: int) -> list[tuple[int, int, float]]:
    """(row, token, score) of the best of (rows, V), in order; of equal ones the lower row, then the lower token."""
    flat = scores.flatten()
    least = flat.topk(min(count, len(flat))).values[-1]
    places = (flat >= least).nonzero().squeeze(1)
    order = flat[places].sort(descending=True, stable=True)
    vocabulary = scores.shape[1]
    chosen = zip(places[order.indices][:count].tolist(), order.values[:count].tolist(), strict=True)
    return [(place // vocabulary, place % vocabulary, value) for place, value in chosen if value > -float("inf")]
