"""Texts of a model that another one drafts: several tokens for each call of the model."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.tree import repeat_rows, select_rows
from unrolled.generate.branch import Branch, begin, distribution
from unrolled.generate.config import SamplerConfig
from unrolled.generate.filters import filter_log_prob
from unrolled.generate.history import History
from unrolled.generate.row import FinishReason
from unrolled.generate.sampler import changed_by, generator_of
from unrolled.predict import KeptState, Predictor, check_vocabulary
from unrolled.tokenizer import Tokenizer

__all__ = ["Drafted", "SpeculativeConfig", "candidates", "speculate", "verdict"]


class SpeculativeConfig(Config):
    """Options of speculative sampling."""

    tokens: int = Field(default=4, ge=1, le=64, description="drafted tokens before the model is asked")
    candidates: tuple[int, ...] = Field(
        default=(1,),
        min_length=1,
        description="tokens that are drafted in each place, from the first; places beyond the list have one",
    )
    replace: bool = Field(default=False, description="whether the candidates of a place are drawn with replacement")

    def widths(self) -> list[int]:
        """Candidates of each place. Raises UsageError for a tree that is too large."""
        found = [*self.candidates, *[1] * self.tokens][: self.tokens]
        if min(found) < 1 or torch.tensor(found).prod() > 256:
            raise UsageError("candidates come to 1 to 256 drafted texts in all; lower some of them.")
        return found


class Drafted(NamedTuple):
    """A finished text. log_prob: nats of its tokens under the model. calls: how often the model was asked. drafted:
    places in which tokens were proposed and judged; accepted: those in which one was taken."""

    text: str
    tokens: list[int]
    log_prob: float
    finish_reason: FinishReason
    calls: int
    drafted: int
    accepted: int


class _Node:
    """A place of the tree: a text, what the draft draws from there, and what it proposes next."""

    def __init__(self, branch: Branch, ended: bool):
        self.branch, self.ended = branch, ended
        self.children: dict[int, _Node] = {}
        self.proposed: list[int] = []
        self.draft = torch.zeros(0)


def candidates(q: Tensor, count: int, replace: bool, generator: torch.Generator) -> list[int]:
    """Tokens drawn from a distribution one after another.

    Args:
        q: (V,) probabilities. replace: whether one may come again.
    Returns:
        ``count`` ids, or fewer where without replacement no more have probability.
    """
    found, left = [], q.clone()
    for _ in range(count):
        if float(left.sum()) <= 0:
            break
        found.append(_drawn(left, generator))
        if not replace:
            left[found[-1]] = 0
    return found


def verdict(
    p: Tensor, q: Tensor, proposed: Sequence[int], replace: bool, generator: torch.Generator
) -> tuple[int, bool]:
    """The token that comes, distributed as p whatever was proposed.

    A candidate c is taken with probability p(c) / q(c); if not, p becomes what of it lies above q, normalised, and q is
    without c where candidates were drawn without replacement. Where none is taken the last p is drawn from.

    Args:
        p: (V,) probabilities of the model, q: of the draft, both as they are drawn from. proposed: drawn from q, see
            :func:`candidates`.
    Returns:
        the id, and whether it is one of those proposed.
    Sources:
        Leviathan et al. 2023 (one candidate); Yang et al. 2024, multi-candidate speculative decoding.
    """
    q = q.clone()
    for token in proposed:
        if float(torch.rand(1, generator=generator, dtype=torch.float64)) * float(q[token]) < float(p[token]):
            return token, True
        rest = (p - q).clamp(min=0)
        if float(rest.sum()) > 0:  # else both are the same but for rounding
            p = rest / rest.sum()
        if not replace:
            q[token] = 0
            if float(q.sum()) > 0:
                q = q / q.sum()
    return _drawn(p, generator), False


def _drawn(weights: Tensor, generator: torch.Generator) -> int:
    total = weights.double().cumsum(0)
    below = torch.nextafter(total[-1], torch.zeros((), dtype=torch.float64))
    uniform = torch.rand((), generator=generator, dtype=torch.float64) * total[-1]
    return int(torch.searchsorted(total, torch.minimum(uniform, below), right=True))


def speculate(
    predictor: Predictor,
    draft: Predictor,
    tokenizer: Tokenizer,
    prompt: str = "",
    max_tokens: int = 200,
    config: SpeculativeConfig | None = None,
    sampler: SamplerConfig | None = None,
    stop: Sequence[str] = (),
    sample: int = 0,
    state: KeptState | None = None,
) -> Drafted:
    """A text of ``predictor``, distributed as without a draft.

    The draft proposes a tree of continuations, ``predictor`` reads all of its branches as rows of one window, and
    :func:`verdict` goes through them place by place. The state before the window is kept, since a recurrent state
    cannot be cut back, and what was taken is read from there. At temperature 0 a candidate is taken where it is the
    model's likeliest token, and the text is the greedy one.

    Args:
        draft: over the same vocabulary. sample: number of the text, for its random numbers.
        sampler: both distributions are as it makes them, penalties and filters included.
        state: what the prompt goes on from, for a draft with the same model only.
    Raises:
        UsageError: as :func:`unrolled.generate.beam_search`, for either of the two.
    """
    config, sampler = config or SpeculativeConfig(), sampler or SamplerConfig()
    check_vocabulary(draft, predictor.vocab_size)
    first = begin(predictor, tokenizer, prompt, max_tokens, sampler, stop, state)
    own = begin(draft, tokenizer, prompt, max_tokens, sampler, stop, None)
    text = _Text(predictor, draft, config, sampler, first.state, own.state, generator_of(sampler.seed, sample))
    branch, reason = first.branch, None
    while reason is None:
        branch, reason = text.block(branch)
    return Drafted(branch.text, branch.tokens, branch.log_prob, reason, text.calls, text.drafted, text.accepted)


class _Text:
    """One text, and the states of both models."""

    def __init__(
        self,
        predictor: Predictor,
        draft: Predictor,
        config: SpeculativeConfig,
        sampler: SamplerConfig,
        state: Any,
        draft_state: Any,
        generator: torch.Generator,
    ):
        self.predictor, self.draft, self.config, self.sampler = predictor, draft, config, sampler
        self.state, self.draft_state, self.generator = state, draft_state, generator
        self.widths = config.widths()
        self.calls = self.drafted = self.accepted = 0

    def block(self, branch: Branch) -> tuple[Branch, FinishReason | None]:
        """Some tokens more: those of the draft that are taken, and one of the model itself."""
        root = _Node(branch, False)
        paths = self._proposed(root)
        ids = torch.tensor(paths, device=self.predictor.device)
        rows = repeat_rows(self.state, len(paths))
        log_prob, after = self.predictor.distributions(rows, ids)
        log_prob = torch.cat([log_prob.cpu(), distribution(self.predictor, after).unsqueeze(1)], 1)
        self.calls += 1
        node, row, taken, reason = root, 0, [], None
        while reason is None:
            depth = len(taken)
            plain = log_prob[row, depth]
            token, accepted = self._judged(node, plain)
            self.drafted += bool(node.proposed)
            self.accepted += accepted
            nats = float(plain[token])
            branch, reason = branch.grown(token, branch.total + nats, branch.log_prob + nats)
            taken.append(token)
            if not accepted:
                break
            node = node.children[token]
            row = next(i for i, path in enumerate(paths) if path[: depth + 1] == taken)
        read = torch.tensor([taken])
        whole = len(taken) == len(paths[0]) + 1
        if whole:
            self.state = self.predictor.observe(select_rows(after, torch.tensor([row])), ids.new_tensor(taken[-1:]))
        else:
            self.state = self.predictor.consume(self.state, read.to(self.predictor.device))
        self.draft_state = self.draft.consume(self.draft_state, read.to(self.draft.device))
        return branch, reason

    def _proposed(self, root: _Node) -> list[list[int]]:
        """Draw the tree. Returns its branches, each as long as the others; what lies beyond a text's end is padding."""
        level, state = [root], self.draft_state
        paths: list[list[int]] = [[]]
        for width in self.widths:
            q = distribution(self.draft, state)
            rows: list[int] = []
            grown: list[_Node] = []
            longer: list[list[int]] = []
            for place, node in enumerate(level):
                if not node.ended:
                    node.draft, node.proposed = self._drawn(node, q[place], width)
                for token in node.proposed:
                    if token not in node.children:
                        made, reason = node.branch.grown(token, 0.0, 0.0)
                        node.children[token] = _Node(made, reason is not None)
                for token, child in node.children.items() or ((0, _Node(node.branch, True)),):
                    rows.append(place)
                    grown.append(child)
                    longer.append([*paths[place], token])
            state = self.draft.observe(
                select_rows(state, torch.tensor(rows)),
                torch.tensor([path[-1] for path in longer]).to(self.draft.device),
            )
            level, paths = grown, longer
        return paths

    def _drawn(self, node: _Node, plain: Tensor, width: int) -> tuple[Tensor, list[int]]:
        """What the draft draws from, and what it draws; at temperature 0 its likeliest tokens."""
        changed = _changed(plain, self.sampler, node.branch.history)
        if changed is None:
            return plain, []
        if self.sampler.temperature == 0:
            best = changed.topk(min(width, len(changed)))
            return plain, [one for one, nats in zip(best.indices.tolist(), best.values, strict=True) if nats.isfinite()]
        q = filter_log_prob(changed, self.sampler).double().exp()
        return q, candidates(q, width, self.config.replace, self.generator)

    def _judged(self, node: _Node, plain: Tensor) -> tuple[int, bool]:
        changed = _changed(plain, self.sampler, node.branch.history)
        if changed is None:
            assert node.branch.history is not None
            raise node.branch.history.refusal()
        if self.sampler.temperature == 0:
            token = int(changed.argmax())
            return token, token in node.proposed
        p = filter_log_prob(changed, self.sampler).double().exp()
        return verdict(p, node.draft, node.proposed, self.config.replace, self.generator)


def _changed(plain: Tensor, sampler: SamplerConfig, history: History | None) -> Tensor | None:
    """Log-probabilities (V,) after what was said; None where no token is left."""
    found = changed_by(plain[None], sampler, None if history is None else [history])[0]
    return found if bool(found.amax().isfinite()) else None
