"""Texts under way that are gone on with in several ways."""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.generate.config import SamplerConfig
from unrolled.generate.constraints import Constraint
from unrolled.generate.history import History, constraint_of
from unrolled.generate.prompts import check_choice, read_prompts
from unrolled.generate.row import FinishReason, TextRow
from unrolled.predict import KeptState, Predictor, check_vocabulary
from unrolled.tokenizer import Tokenizer

__all__ = ["Begun", "Branch", "Hypothesis", "begin", "distribution"]


class Hypothesis(NamedTuple):
    """A finished text. log_prob: nats of its tokens under the predictor. score: by which it was ranked: the sum, less
    what diversity took off, divided by the number of its tokens to the power ``length``. group: which found it."""

    text: str
    tokens: list[int]
    log_prob: float
    score: float
    finish_reason: FinishReason
    group: int


class Branch:
    """A text under way. total: by which it is ranked; log_prob: of the model alone."""

    def __init__(self, row: TextRow, history: History | None):
        self.row, self.history = row, history
        self.text, self.tokens, self.total, self.log_prob = "", [], 0.0, 0.0

    def grown(self, token: int, total: float, log_prob: float) -> tuple["Branch", FinishReason | None]:
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


class Begun(NamedTuple):
    """What a search begins from. branch: no token yet. state: of one row, after the prompt. falls: whether a text's sum
    can only fall with every token."""

    branch: Branch
    state: Any
    falls: bool


def begin(
    predictor: Predictor,
    tokenizer: Tokenizer,
    prompt: str,
    max_tokens: int,
    sampler: SamplerConfig,
    stop: Sequence[str],
    state: KeptState | None,
    constraint: Constraint | None = None,
    backspaces: bool = False,
) -> Begun:
    """Check what a search is asked for, and read its prompt.

    Args:
        constraint: in place of the sampler's. backspaces: whether a token may take the last one back.
    Raises:
        UsageError: in one sentence; also for a predictor whose rows would change each other.
    """
    check_vocabulary(predictor, tokenizer.vocab_size)
    check_choice(tokenizer, sampler, stop)
    if predictor.lockstep or not predictor.independent:
        raise UsageError(f"with {predictor.kind} texts would change each other; leave that setting out.")
    if sampler.backspace is not None and not backspaces:
        raise UsageError("a backspace is for texts that are drawn token by token; leave out sampler.backspace.")
    if max_tokens < 1:
        raise UsageError(f"max_tokens must be at least 1 (got {max_tokens}).")
    ids = tokenizer.encode(prompt)
    begun = KeptState("", None) if state is None else state
    before = begun._replace(last=ids[-1], drawn=0, pending=b"", held="") if ids else begun
    history, constraint = None, constraint or constraint_of(sampler, tokenizer)
    if sampler.remembers or constraint is not None:
        history = History(sampler, ids, tokenizer.end_id, constraint)
    branch = Branch(TextRow(tokenizer, max_tokens, stop, before, stop_tokens=sampler.stop_tokens), history)
    first = None if begun.tree is None else predictor.own_form(begun.tree)
    falls = not any(one > 0 for one in sampler.bias.values()) and min(sampler.presence, sampler.frequency) >= 0
    return Begun(branch, read_prompts(predictor, [ids], first), falls)


def distribution(predictor: Predictor, state: Any) -> Tensor:
    """Log-probabilities (rows, V) on the CPU. Raises UnrolledError where they are not finite."""
    log_prob = predictor.predict(state).log_prob.cpu()
    if not bool(log_prob.amax(-1).isfinite().all()):
        raise UnrolledError("the model gives no finite probabilities; its weights are damaged or diverged.")
    return log_prob
