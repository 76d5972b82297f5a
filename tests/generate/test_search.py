"""Best-first search: the global best by enumeration, budgets, and what cannot be searched."""

import itertools
from typing import Any

import pytest
import torch

from generate.ended import Letters, random_predictor
from unrolled.core.errors import UsageError
from unrolled.generate import SamplerConfig, generate, tree_search
from unrolled.predict import NeuralPredictor


def nats(model: NeuralPredictor, ids: tuple[int, ...]) -> float:
    return -float(model.window(model.begin(1), torch.tensor([ids])).nll.sum())


def texts(size: int, most: int) -> list[tuple[int, ...]]:
    """All whole texts: ended, or as long as they may be."""
    end = size - 1
    every = [
        (*ids, end) for n in range(most) for ids in itertools.product(range(end), repeat=n)
    ]  # fmt: skip
    return every + list(itertools.product(range(end), repeat=most))


def best(model: NeuralPredictor, size: int, most: int, length: float = 0.0) -> tuple[float, tuple[int, ...]]:
    """By enumeration, all texts side by side."""
    every = texts(size, most)
    padded = torch.tensor([[*ids, *[0] * (most - len(ids))] for ids in every])
    nll = model.window(model.begin(len(every)), padded).nll.cumsum(1)
    scores = [-float(nll[i, len(ids) - 1]) / len(ids) ** length for i, ids in enumerate(every)]
    place = max(range(len(every)), key=lambda i: scores[i])
    return scores[place], every[place]


@pytest.mark.parametrize("length", [0.0, 0.8, -0.5])
def test_it_is_enumeration(length: float) -> None:
    asked = 0
    for seed in range(40):
        model = random_predictor(4, seed)
        found = tree_search(model, Letters(4), "", 5, 500, length)
        score, ids = best(model, 4, 5, length)
        assert found.proved
        assert tuple(found.best.tokens) == ids, seed
        assert found.best.score == pytest.approx(score, abs=1e-9)
        assert found.best.log_prob == pytest.approx(nats(model, ids), abs=1e-9)
        asked += found.expanded
    assert asked / 40 < 40, "of the 121 that there are"


@pytest.mark.parametrize("budget", [0, 1, 3, 10])
def test_budgets_are_kept(budget: int) -> None:
    short = 0
    for seed in range(60):
        model = random_predictor(7, seed)
        found = tree_search(model, Letters(7), "ab", 8, budget)
        greedy = generate(model, Letters(7), ("ab",), 8, SamplerConfig.parse({"temperature": 0}))[0]
        assert found.expanded <= budget
        assert found.best.log_prob >= greedy.log_prob - 1e-9
        full = tree_search(model, Letters(7), "ab", 8, 5000)
        assert full.proved
        if found.proved:
            assert found.best == full.best
        else:
            short += 1
            assert found.expanded == budget
    assert short, "some need more"


def test_what_memory_gives_up_is_not_said_to_be_proved() -> None:
    """A vocabulary larger than what is kept of one distribution."""
    model = random_predictor(150, 1)
    found = tree_search(model, Letters(150), "", 3, 1)
    assert not found.proved


def test_constraints_and_stops() -> None:
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    model = random_predictor(7, 3)
    words = ("abc", "bca", "fed", "ff")
    sampler = SamplerConfig.parse({"constrain": {"name": "regex", "pattern": "|".join(words)}})
    found = tree_search(model, Letters(7), "", 9, 500, 0.0, sampler)
    scores = {word: nats(model, tuple(Letters(7).encode(word))) for word in words}
    assert found.best.text == max(words, key=lambda word: scores[word])
    stopped = tree_search(model, Letters(7), "", 9, 3000, 0.0, None, ("d",))
    assert stopped.proved
    assert "d" not in stopped.best.text


@pytest.mark.parametrize(
    ("options", "said"), [({"bias": {1: 2.0}}, "only fall"), ({"presence": -1.0}, "only fall")]
)  # fmt: skip
def test_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tree_search(random_predictor(7, 1), Letters(7), "", 5, 10, 0.0, SamplerConfig.parse(options))
    with pytest.raises(UsageError, match="at least 0"):
        tree_search(random_predictor(7, 1), Letters(7), "", 5, -1)
