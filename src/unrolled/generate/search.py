"""The text of highest score, by best-first search of the tree of texts."""

import heapq
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.generate.branch import Begun, Branch, Hypothesis, begin, distribution
from unrolled.generate.config import SamplerConfig
from unrolled.generate.row import FinishReason
from unrolled.generate.sampler import changed_by
from unrolled.predict import KeptState, Predictor
from unrolled.tokenizer import Tokenizer

__all__ = ["Searched", "tree_search"]


class Searched(NamedTuple):
    """best: the best text that was found. proved: whether no text has a higher score. expanded: distributions that were
    asked for beyond those of the greedy text."""

    best: Hypothesis
    proved: bool
    expanded: int


class _Node(NamedTuple):
    """A text that was expanded. state: after its tokens. ranked, plain: (V,) nats of what comes next, by which texts
    are ranked, and of the model alone."""

    branch: Branch
    state: Any
    ranked: Tensor
    plain: Tensor


class _Entry(NamedTuple):
    """A text that may be expanded: that of parent and a token. bound: what it reaches at most, negated, so that the
    best comes first. order: breaks ties."""

    bound: float
    order: int
    parent: _Node
    token: int


def tree_search(
    predictor: Predictor,
    tokenizer: Tokenizer,
    prompt: str = "",
    max_tokens: int = 200,
    budget: int = 1000,
    length: float = 0.0,
    sampler: SamplerConfig | None = None,
    stop: Sequence[str] = (),
    state: KeptState | None = None,
) -> Searched:
    """The text of highest score: the sum of its log-probabilities over its tokens' number to the power ``length``.

    The greedy text comes first and is the one to beat. Then the text of the highest bound is expanded, again and again;
    since sums only fall, the first whole text that comes so is the best of all. Memory is O(budget).

    Args:
        budget: distributions asked for beyond the greedy text.
        sampler, stop, state: as for :func:`unrolled.generate.beam_search`.
    Raises:
        UsageError: as there; a bias is positive or a penalty negative, so that a sum could rise.
    """
    sampler = sampler or SamplerConfig()
    if budget < 0:
        raise UsageError(f"the budget of a search must be at least 0 (got {budget}).")
    begun = begin(predictor, tokenizer, prompt, max_tokens, sampler, stop, state)
    if not begun.falls:
        raise UsageError("a search needs sums that only fall; leave out a positive bias and negative penalties.")
    return _Search(predictor, max_tokens, budget, length, sampler).run(begun)


class _Search:
    def __init__(self, predictor: Predictor, most: int, budget: int, length: float, sampler: SamplerConfig):
        self.predictor, self.most, self.budget, self.length, self.sampler = predictor, most, budget, length, sampler
        self.heap: list[_Entry] = []
        self.orders = itertools.count()
        self.best: Hypothesis | None = None
        self.expanded = 0
        self.dropped = -math.inf  # the bound of the best text that was given up

    def run(self, begun: Begun) -> Searched:
        self._greedy(begun)
        while self.heap:
            entry = heapq.heappop(self.heap)
            if self.best is not None and -entry.bound <= self.best.score:
                break
            branch, reason = self._child(entry.parent, entry.token)
            if reason is not None:
                self._finish(branch, reason)
            elif self.expanded == self.budget:
                self.dropped = max(self.dropped, -entry.bound)
                break
            else:
                self.expanded += 1
                ids = torch.tensor([entry.token])
                after = self.predictor.observe(entry.parent.state, ids.to(self.predictor.device))
                self._push_children(self._node(branch, after))
        if self.best is None:
            raise UsageError("no text is left to be said; loosen what is forbidden.")
        return Searched(self.best, self.dropped <= self.best.score, self.expanded)

    def _greedy(self, begun: Begun) -> None:
        """The greedy text, and what else could have followed on the way."""
        branch, state = begun.branch, begun.state
        while True:
            node = self._node(branch, state)
            token = int(node.ranked.argmax())
            if float(node.ranked[token]) == -math.inf:
                # a dead end: what other ways there are is in the heap
                if not self.heap and node.branch.history is not None:
                    raise node.branch.history.refusal()
                return
            self._push_children(node, token)
            branch, reason = self._child(node, token)
            if reason is not None:
                self._finish(branch, reason)
                return
            state = self.predictor.observe(state, torch.tensor([token]).to(self.predictor.device))

    def _node(self, branch: Branch, state: Any) -> _Node:
        plain = distribution(self.predictor, state)
        histories = None if branch.history is None else [branch.history]
        return _Node(branch, state, changed_by(plain, self.sampler, histories)[0].double(), plain[0])

    def _child(self, node: _Node, token: int) -> tuple[Branch, FinishReason | None]:
        total = node.branch.total + float(node.ranked[token])
        return node.branch.grown(token, total, node.branch.log_prob + float(node.plain[token]))

    def _bound(self, total: float, tokens: int) -> float:
        """What a text of this sum and so many tokens reaches at most, however it goes on."""
        return total / max(1, self.most if self.length > 0 else tokens) ** self.length

    def _push_children(self, node: _Node, taken: int | None = None) -> None:
        """Those that are better than the best text, as many as memory of O(budget) holds."""
        most = 4 * self.budget + 64
        values, ids = node.ranked.topk(min(len(node.ranked), most))
        tokens = len(node.branch.tokens) + 1
        for value, token in zip(values.tolist(), ids.tolist(), strict=True):
            bound = self._bound(node.branch.total + value, tokens)
            if value == -math.inf or (self.best is not None and bound <= self.best.score):
                break
            if token != taken:
                heapq.heappush(self.heap, _Entry(-bound, next(self.orders), node, token))
        else:
            if len(ids) < len(node.ranked):
                self.dropped = max(self.dropped, self._bound(node.branch.total + values[-1].item(), tokens))
        if len(self.heap) > 2 * most:
            kept = heapq.nsmallest(most + 1, self.heap)
            self.dropped = max(self.dropped, -kept.pop().bound)
            self.heap = kept

    def _finish(self, branch: Branch, reason: FinishReason) -> None:
        score = branch.total / len(branch.tokens) ** self.length
        if self.best is None or score > self.best.score:
            self.best = Hypothesis(branch.text, branch.tokens, branch.log_prob, score, reason, 0)
