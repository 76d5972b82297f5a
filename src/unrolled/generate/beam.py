"""The texts of highest score: beam search, plain and diverse."""

import copy
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.tree import map_tree, select_rows
from unrolled.generate.config import SamplerConfig
from unrolled.generate.history import History, constraint_of
from unrolled.generate.row import FinishReason, TextRow
from unrolled.generate.sampler import changed_by
from unrolled.generate.text import check_choice, read_prompts
from unrolled.predict import KeptState, Predictor, check_vocabulary
from unrolled.tokenizer import Tokenizer

__all__ = ["BeamConfig", "Hypothesis", "beam_search"]


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


class Hypothesis(NamedTuple):
    """A finished text. log_prob: nats of its tokens under the predictor. score: by which it was ranked: the sum, less
    what diversity took off, divided by the number of its tokens to the power ``length``. group: which found it."""

    text: str
    tokens: list[int]
    log_prob: float
    score: float
    finish_reason: FinishReason
    group: int


class _Beam:
    """A text under way. total: by which it is ranked; log_prob: of the model alone."""

    def __init__(self, row: TextRow, history: History | None):
        self.row, self.history = row, history
        self.text, self.tokens, self.total, self.log_prob = "", [], 0.0, 0.0

    def grown(self, token: int, total: float, log_prob: float) -> tuple["_Beam", FinishReason | None]:
        """The text with a token more, and why it ends there, if it does."""
        made = copy.copy(self)
        made.row = self.row.fork()
        made.history = None if self.history is None else self.history.fork()
        if made.history is not None:
            made.history.push(token)
        text, reason = made.row.push(token, None if made.history is None else made.history.over)
        made.text, made.tokens = self.text + text, [*self.tokens, token]
        made.total, made.log_prob = total, log_prob
        return made, reason


class _Group:
    """Beams that compete with each other, and the texts that they finished. falls: whether sums can only fall."""

    def __init__(self, number: int, size: int, config: BeamConfig, first: _Beam, falls: bool):
        self.number, self.size, self.config, self.falls = number, size, config, falls
        self.beams = [first]
        self.rows = [number]  # of the batch: those that the beams go on from
        self.pool: list[Hypothesis] = []

    def finish(self, beam: _Beam, reason: FinishReason) -> None:
        score = beam.total / len(beam.tokens) ** self.config.length
        self.pool.append(Hypothesis(beam.text, beam.tokens, beam.log_prob, score, reason, self.number))
        self.pool.sort(key=lambda one: -one.score)  # stable: of equal ones the first stays before
        del self.pool[self.size :]

    def step(self, log_prob: Tensor, plain: Tensor, penalty: Tensor) -> list[int]:
        """One token more for every beam.

        Args:
            log_prob: (beams, V) by which tokens are ranked, plain: (beams, V) of the model. penalty: (V,) for what the
                groups before chose now.
        Returns:
            what the beams chose that go on.
        """
        totals = torch.tensor([beam.total for beam in self.beams], dtype=torch.float64)
        scores = totals.unsqueeze(1) + log_prob.double() - penalty
        grown: list[_Beam] = []
        rows: list[int] = []
        for rank, (place, token, total) in enumerate(_best(scores, 2 * self.size)):
            beam = self.beams[place]
            made, reason = beam.grown(token, total, beam.log_prob + float(plain[place, token]))
            if reason is None or reason == "length":
                grown.append(made)
                rows.append(place)
                if len(grown) == self.size:
                    break
            elif rank < self.size:
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
) -> list[Hypothesis]:
    """The texts of highest score that beam search finds, the best first, group by group.

    Each step takes the 2B best of all (row, token); of those that end a text the ones among the first B count, and the
    first B others go on. The length of a text is that of what is generated, with its end symbol and without the prompt.
    A text's sum only falls (unless a bias is positive, or a penalty negative), which bounds what those under way can
    reach. Of equal scores the lower row comes first, then the lower id.

    Args:
        sampler: its bias, penalties, ``no_repeat`` and constraint change the scores; temperature, filters and seed do
            not.
        stop: strings that end a text. state: what the prompt goes on from.
    Raises:
        UsageError: as :func:`unrolled.generate.stream`; no text is left.
    Sources:
        groups: diverse beam search, Vijayakumar et al. 2018; the penalty stays in the score.
    """
    check_vocabulary(predictor, tokenizer.vocab_size)
    config, sampler = config or BeamConfig(), sampler or SamplerConfig()
    check_choice(tokenizer, sampler, stop)
    if predictor.lockstep or not predictor.independent:
        raise UsageError(f"with {predictor.kind} beams would change each other; leave that setting out.")
    if max_tokens < 1:
        raise UsageError(f"max_tokens must be at least 1 (got {max_tokens}).")
    ids = tokenizer.encode(prompt)
    begun = KeptState("", None) if state is None else state
    before = begun._replace(last=ids[-1], drawn=0, pending=b"", held="") if ids else begun
    groups = []
    falls = not any(one > 0 for one in sampler.bias.values()) and min(sampler.presence, sampler.frequency) >= 0
    constraint = constraint_of(sampler, tokenizer)
    for number in range(config.groups):
        history = History(sampler, ids, tokenizer.end_id, constraint) if sampler.remembers else None
        beam = _Beam(TextRow(tokenizer, max_tokens, stop, before, stop_tokens=sampler.stop_tokens), history)
        groups.append(_Group(number, config.beams // config.groups, config, beam, falls))
    first = None if begun.tree is None else predictor.own_form(begun.tree)
    states = map_tree(lambda value: value.repeat_interleave(config.groups, 0), read_prompts(predictor, [ids], first))
    return _search(predictor, states, groups, max_tokens, sampler)


def _search(
    predictor: Predictor, state: Any, groups: list[_Group], max_tokens: int, sampler: SamplerConfig
) -> list[Hypothesis]:
    going, refusal = groups, None
    for count in range(1, max_tokens + 1):
        log_prob = predictor.predict(state).log_prob.cpu()
        if not bool(log_prob.amax(-1).isfinite().all()):
            raise UnrolledError("the model gives no finite probabilities; its weights are damaged or diverged.")
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
            for token in group.step(ranked, part, penalty):
                penalty[token] += group.config.diversity
        if count == max_tokens:
            for group in going:
                for beam in group.beams:
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
