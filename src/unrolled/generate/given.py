"""Beam search for the best text of a kind: what a text must come to, and how likely it is to."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.core.tree import select_rows
from unrolled.generate.branch import Branch, begin, distribution
from unrolled.generate.config import SamplerConfig
from unrolled.generate.filters import filter_log_prob
from unrolled.generate.sampler import changed_by, draw, generator_of
from unrolled.predict import KeptState, Predictor
from unrolled.tokenizer import Tokenizer

__all__ = ["EVENTS", "Chance", "Condition", "Event", "Probe", "fit_probe", "parse_events"]

_CONSIDERED = 8
_SAMPLES = 256


class Event(ABC):
    """Something that a whole text does or does not."""

    def __init__(self, number: int | None = None):
        self.number = number

    @abstractmethod
    def status(self, tokens: Sequence[int], ended: bool) -> bool | None:
        """Whether a text does it, whatever follows; None where that is open.

        Args:
            tokens: what was generated, without an end symbol. ended: whether nothing more comes.
        """


class NonEmpty(Event):
    """At least so many tokens, by default one."""

    def status(self, tokens: Sequence[int], ended: bool) -> bool | None:
        """See :meth:`Event.status`."""
        return True if len(tokens) >= (self.number or 1) else False if ended else None


class NoRepeat(Event):
    """No sequence of so many tokens twice, by default of one token, one right after the other."""

    def status(self, tokens: Sequence[int], ended: bool) -> bool | None:
        """See :meth:`Event.status`."""
        if self.number is None:
            lost = any(a == b for a, b in itertools.pairwise(tokens))
        else:
            parts = [tuple(tokens[i : i + self.number]) for i in range(len(tokens) - self.number + 1)]
            lost = len(set(parts)) < len(parts)
        return False if lost else True if ended else None


EVENTS: dict[str, type[Event]] = {"nonempty": NonEmpty, "no-repeat": NoRepeat}
"""Name -> event. A number after the name is its argument, as in ``no-repeat-3``."""

Chance = Callable[[Sequence[Sequence[int]], Tensor | None], Tensor]
"""From the tokens of some texts under way, and the outputs (rows, width) that their next tokens are predicted from, the
log-probability (rows,) that they come to what is asked for."""


def parse_events(text: str) -> list[Event]:
    """Events with commas between them. Raises UsageError for an unknown one."""
    found = []
    for one in text.split(","):
        name, _, number = one.strip().rpartition("-")
        name, number = (name, number) if number.isdigit() and name in EVENTS else (one.strip(), "")
        if name not in EVENTS:
            raise unknown_name("event", name, EVENTS)
        if number == "0":
            raise UsageError(f"the number of {name} must be at least 1; write {name}-1.")
        found.append(EVENTS[name](int(number) if number else None))
    return found


class Condition:
    """What beam search is conditioned on: all of some events.

    A text under way is ranked by its sum plus log P(event | text so far), which is 0 where the event is certain, minus
    infinity where it is lost, and else what ``chance`` says. Of a step's continuations the ``8 B`` best by their sums
    are looked at.

    Args:
        end: the end symbol, or None.
    """

    def __init__(self, events: Sequence[Event], chance: Chance, predictor: Predictor, end: int | None):
        self.events, self.chance, self.predictor, self.end = events, chance, predictor, end

    def status(self, tokens: Sequence[int], whole: bool) -> bool | None:
        """Whether a text comes to all of the events; None where that is open. whole: no more follows."""
        ended = bool(tokens) and tokens[-1] == self.end
        found = [one.status(tokens[:-1] if ended else tokens, ended or whole) for one in self.events]
        return False if False in found else None if None in found else True

    def admits(self, tokens: Sequence[int]) -> bool:
        """Whether a whole text comes to all of the events."""
        return self.status(tokens, True) is True

    def rank(self, scores: Tensor, beams: Sequence[Branch], state: Any, most: int, size: int) -> Tensor:
        """Scores (beams, V) with what the event adds; minus infinity for what is not looked at.

        Args:
            state: of the beams. most: tokens of a text. size: beams that go on, B.
        """
        flat = scores.flatten()
        count = min(len(flat), _CONSIDERED * size)
        places = flat.topk(count).indices
        places = places[flat[places].isfinite()]
        rows, ids = places // scores.shape[1], places % scores.shape[1]
        texts = [[*beams[row].tokens, token] for row, token in zip(rows.tolist(), ids.tolist(), strict=True)]
        told = [self.status(text, len(text) == most) for text in texts]
        added = torch.tensor([0.0 if one is not False else -torch.inf for one in told], dtype=torch.float64)
        undecided = [place for place, one in enumerate(told) if one is None]
        if undecided:
            chosen = torch.tensor(undecided)
            after = self.predictor.observe(select_rows(state, rows[chosen]), ids[chosen].to(self.predictor.device))
            hidden = self.predictor.predict(after).hidden
            added[chosen] = self.chance([texts[place] for place in undecided], hidden).double().cpu()
        found = torch.full_like(flat, -torch.inf)
        found[places] = flat[places] + added
        return found.view_as(scores)


class Probe:
    """P(event | text so far) by logistic regression on the model's output and how far the text is.

    Args:
        weight: (width + 2,), the bias last but one. most: tokens of a text.
    """

    def __init__(self, weight: Tensor, most: int):
        self.weight, self.most = weight, most

    def __call__(self, texts: Sequence[Sequence[int]], hidden: Tensor | None) -> Tensor:
        """See :data:`Chance`."""
        assert hidden is not None
        lengths = torch.tensor([len(text) for text in texts])
        return torch.nn.functional.logsigmoid(_features(hidden.cpu().double(), lengths, self.most) @ self.weight)


def _features(hidden: Tensor, lengths: Tensor, most: int) -> Tensor:
    further = torch.stack([torch.ones(len(lengths)), lengths / most], 1).to(hidden)
    return torch.cat([hidden, further], 1)


def fit_probe(
    predictor: Predictor,
    tokenizer: Tokenizer,
    prompt: str,
    max_tokens: int,
    events: Sequence[Event],
    sampler: SamplerConfig | None = None,
    stop: Sequence[str] = (),
    state: KeptState | None = None,
    samples: int = _SAMPLES,
) -> Probe:
    """A probe of texts that the model itself writes after the prompt, each of whose places is an example.

    Raises:
        UsageError: a predictor without hidden states; the event never, or always, came in the samples.
    """
    if not predictor.gives_hidden:
        raise UsageError("how likely a text is to come to something is read off hidden states, which this model lacks.")
    sampler = sampler or SamplerConfig()
    first = begin(predictor, tokenizer, prompt, max_tokens, sampler, stop, state)
    condition = Condition(events, lambda texts, hidden: torch.zeros(len(texts)), predictor, tokenizer.end_id)
    rows = [first.branch for _ in range(samples)]
    generators = [generator_of(sampler.seed, sample) for sample in range(samples)]
    tree = select_rows(first.state, torch.zeros(samples, dtype=torch.int64))
    seen: list[tuple[int, Tensor, int]] = []  # number of the text, output, length
    outcome, going = [False] * samples, list(range(samples))
    while going:
        plain = distribution(predictor, tree)
        hidden = predictor.predict(tree).hidden
        assert hidden is not None
        histories = [branch.history for branch in (rows[i] for i in going) if branch.history is not None] or None
        changed = changed_by(plain, sampler, histories)
        sound = changed.amax(-1).isfinite().tolist()
        ids = draw(filter_log_prob(torch.where(changed.amax(-1, True).isfinite(), changed, plain), sampler), [
            generators[i] for i in going
        ]).tolist()  # fmt: skip
        alive = []
        for place, number in enumerate(going):
            if not sound[place]:
                continue
            seen.append((number, hidden[place].cpu().double(), len(rows[number].tokens)))
            rows[number], reason = rows[number].grown(ids[place], 0.0, 0.0)
            if reason is None:
                alive.append(place)
            else:
                outcome[number] = condition.admits(rows[number].tokens)
        tree = select_rows(tree, torch.tensor(alive, dtype=torch.int64))
        going = [going[place] for place in alive]
        if going:
            tree = predictor.observe(tree, torch.tensor([ids[place] for place in alive]).to(predictor.device))
    if not any(outcome):
        raise UsageError(f"in {samples} texts of the model what is asked for never came; ask for less.")
    x = _features(torch.stack([one for _, one, _ in seen]), torch.tensor([n for *_, n in seen]), max_tokens)
    return Probe(_fitted(x, torch.tensor([float(outcome[number]) for number, *_ in seen]).double()), max_tokens)


def _fitted(x: Tensor, y: Tensor) -> Tensor:
    """Logistic regression with a little weight decay, by L-BFGS."""
    scale = x.abs().amax(0).clamp(min=1e-6)
    weight = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            value = torch.nn.functional.binary_cross_entropy_with_logits((x / scale) @ weight, y)
            value = value + 1e-3 * weight.square().sum() / len(y) ** 0.5
            value.backward()
        return value

    optimizer.step(loss)
    return weight.detach() / scale
