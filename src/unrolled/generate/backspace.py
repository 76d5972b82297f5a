"""Texts in which a token takes the last one back."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from unrolled.core.tree import map_tree, select_rows
from unrolled.generate.branch import Branch, begin, distribution
from unrolled.generate.config import SamplerConfig
from unrolled.generate.prompts import Piece
from unrolled.generate.sampler import choose, generator_of
from unrolled.predict import Predictor
from unrolled.tokenizer import Tokenizer

__all__ = ["with_backspaces"]


class _Text:
    """A text under way. branch, state: of what is left of it. before: the same of what it was before each of its last
    tokens, which is as far as it can go back."""

    def __init__(self, prompt: int, sample: int, branch: Branch, state: Any, sampler: SamplerConfig):
        self.prompt, self.sample, self.branch, self.state = prompt, sample, branch, state
        self.before: deque[tuple[Branch, Any]] = deque(maxlen=sampler.backspace_depth)
        self.generator, self.drawn = generator_of(sampler.seed, sample), 0


def with_backspaces(
    predictor: Predictor,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    max_tokens: int,
    sampler: SamplerConfig,
    stop: Sequence[str],
    samples: int,
) -> Iterator[Piece]:
    """Texts by draws, of at most ``max_tokens`` draws each, those of a backspace included.

    A backspace puts back the state, the text and what was said as they were before the token that it takes back, kept
    from then, so that they are those of the shorter text to the bit. Where nothing is left that it could take back, at
    a prompt's end or ``backspace_depth`` tokens before the longest, the text stays as it is. What a token adds may be
    taken back, so that the whole text comes with its last piece.

    Raises:
        UsageError: as :func:`unrolled.generate.stream`; a predictor whose rows would change each other.
    """
    rows = []
    for number, prompt in enumerate(prompts):
        begun = begin(predictor, tokenizer, prompt, max_tokens, sampler, stop, None, backspaces=True)
        rows += [_Text(number, sample, begun.branch, begun.state, sampler) for sample in range(samples)]
    return _written(predictor, rows, max_tokens, sampler)


def _written(predictor: Predictor, rows: list[_Text], most: int, sampler: SamplerConfig) -> Iterator[Piece]:
    while rows:
        state = map_tree(lambda *parts: torch.cat(parts), *(row.state for row in rows))
        log_prob = distribution(predictor, state)
        histories = [row.branch.history for row in rows if row.branch.history is not None] or None
        ids, _, stuck = choose(log_prob, sampler, [row.generator for row in rows], histories)
        if stuck and histories is not None:
            raise histories[stuck[0]].refusal()
        after = predictor.observe(state, ids.to(predictor.device))
        going = []
        for place, (row, token) in enumerate(zip(rows, ids.tolist(), strict=True)):
            nats, reason = float(log_prob[place, token]), None
            row.drawn += 1
            if token != sampler.backspace:
                row.before.append((row.branch, row.state))
                total = row.branch.total + nats
                row.branch, reason = row.branch.grown(token, total, total)
                row.state = select_rows(after, torch.tensor([place]))
            elif row.before:
                row.branch, row.state = row.before.pop()
            if reason is None and row.drawn == most:
                text, stopped = row.branch.row.fork().finish()
                row.branch.text += text
                reason = "stop" if stopped else "length"
            yield Piece(row.prompt, row.sample, token, nats, row.branch.text if reason else "", reason)
            if reason is None:
                going.append(row)
        rows = going
