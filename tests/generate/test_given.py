"""Conditional beam search: the best text of a kind by enumeration, and probes of the model's own texts."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from generate.ended import Letters, random_predictor
from unrolled.core.errors import UsageError
from unrolled.generate import BeamConfig, Hypothesis, beam_search
from unrolled.generate.given import Condition, fit_probe, parse_events
from unrolled.predict import NeuralPredictor

SIZE, MOST, END = 3, 5, 2


class Every:
    """All whole texts of a model, their probabilities, and how likely a beginning comes to the event."""

    def __init__(self, model: NeuralPredictor, events: str):
        self.events = parse_events(events)
        ended = [(*ids, END) for n in range(MOST) for ids in itertools.product(range(END), repeat=n)]
        self.texts = ended + list(itertools.product(range(END), repeat=MOST))
        padded = torch.tensor([[*ids, *[0] * (MOST - len(ids))] for ids in self.texts])
        nll = model.window(model.begin(len(padded)), padded).nll.cumsum(1)
        self.log_prob = [-float(nll[i, len(ids) - 1]) for i, ids in enumerate(self.texts)]
        self.condition = Condition(self.events, self.chance, model, END)
        self.kind = [self.condition.admits(ids) for ids in self.texts]

    def chance(self, texts: Sequence[Sequence[int]], hidden: Tensor | None) -> Tensor:
        found = []
        for text in texts:
            both = [0.0, 0.0]
            for ids, nats, kind in zip(self.texts, self.log_prob, self.kind, strict=True):
                if list(ids[: len(text)]) == list(text):
                    both[0] += kind * torch.tensor(nats, dtype=torch.float64).exp().item()
                    both[1] += torch.tensor(nats, dtype=torch.float64).exp().item()
            found.append(both[0] / both[1])
        return torch.tensor(found, dtype=torch.float64).log()

    def best(self) -> tuple[float, tuple[int, ...]]:
        return max((n, ids) for n, ids, kind in zip(self.log_prob, self.texts, self.kind, strict=True) if kind)


def search(model: NeuralPredictor, width: int, condition: Condition | None) -> list[Hypothesis]:
    config = BeamConfig(beams=width, nbest=1, length=0)
    return beam_search(model, Letters(SIZE), "", MOST, config, condition=condition)


@pytest.mark.parametrize("width", [2, 243])
def test_it_is_enumeration(width: int) -> None:
    for seed in range(12):
        model = random_predictor(SIZE, seed)
        every = Every(model, "nonempty-3,no-repeat")
        nats, ids = every.best()
        (found,) = search(model, width, every.condition)
        assert tuple(found.tokens) == ids, seed
        assert found.log_prob == pytest.approx(nats, abs=1e-9)


@pytest.mark.slow
def test_it_is_enumeration_on_200_models() -> None:
    for seed in range(200):
        model = random_predictor(SIZE, seed)
        every = Every(model, "nonempty-3,no-repeat")
        assert tuple(search(model, 2, every.condition)[0].tokens) == every.best()[1], seed


def test_everything_is_plain_beam_search() -> None:
    for seed in range(10):
        model = random_predictor(7, seed)
        condition = Condition([], lambda texts, hidden: torch.zeros(len(texts)), model, 6)
        config = BeamConfig(beams=4, nbest=4)
        plain = beam_search(model, Letters(7), "ab", 8, config)
        assert beam_search(model, Letters(7), "ab", 8, config, condition=condition) == plain


def test_events() -> None:
    nonempty, distinct, thrice = parse_events("nonempty, no-repeat,no-repeat-3")
    assert [nonempty.status(*one) for one in (([], False), ([], True), ([1], False))] == [None, False, True]
    assert distinct.status([1, 2, 1], False) is None
    assert distinct.status([1, 1], False) is False
    assert distinct.status([1, 2], True) is True
    assert thrice.status([1, 2, 3, 1, 2], False) is None
    assert thrice.status([1, 2, 3, 1, 2, 3], False) is False
    assert thrice.status([1, 1, 1], True) is True
    for text, said in (("nonemty", "did you mean 'nonempty'"), ("no-repeat-0", "at least 1")):
        with pytest.raises(UsageError, match=said):
            parse_events(text)


def test_a_probe_of_the_models_own_texts() -> None:
    """Texts of the kind are found, and places from which it is likelier are told to be so."""
    model, tokenizer = random_predictor(7, 5), Letters(7)
    events = parse_events("nonempty-4,no-repeat")
    probe = fit_probe(model, tokenizer, "", 10, events)
    condition = Condition(events, probe, model, 6)
    found = beam_search(model, tokenizer, "", 10, BeamConfig(beams=4, nbest=2, length=0), condition=condition)
    assert found
    assert all(condition.admits(one.tokens) for one in found)
    (free,) = beam_search(model, tokenizer, "", 10, BeamConfig(beams=4, nbest=1, length=0))
    assert found[0].log_prob <= free.log_prob + 1e-9
    assert torch.equal(fit_probe(model, tokenizer, "", 10, events).weight, probe.weight)
    with pytest.raises(UsageError, match="never came"):
        fit_probe(model, tokenizer, "", 3, parse_events("nonempty-9"))
