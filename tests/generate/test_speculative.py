"""Drafted texts: distributed as the model's own, a wrong judge is found out, and the greedy text is the greedy text."""

import importlib
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from generate.ended import Letters, random_predictor
from unrolled.core.errors import UsageError
from unrolled.generate import SamplerConfig, SpeculativeConfig, generate, speculate
from unrolled.generate.sampler import generator_of
from unrolled.generate.speculative import candidates, verdict
from unrolled.predict import Prediction, Predictor

V = 8


class Table(Predictor):
    """The last token alone decides what comes next."""

    vocab_size, start_id, gives_hidden = V + 1, 0, False

    def __init__(self, seed: int, scale: float):
        drawn = scale * torch.randn(V, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.log_prob = torch.cat([torch.log_softmax(drawn, 1), torch.full((V, 1), -math.inf)], 1)
        self.windows = self.steps = 0

    def begin(self, batch: int, first: Tensor | None = None) -> Any:
        return torch.zeros(batch, dtype=torch.int64) if first is None else first

    def predict(self, state: Any) -> Prediction:
        return Prediction(self.log_prob[state], None)

    def observe(self, state: Any, ids: Tensor) -> Any:
        self.steps += 1
        return ids

    def distributions(self, state: Any, ids: Tensor, reset: Tensor | None = None) -> tuple[Tensor, Any]:
        self.windows += 1
        return self.log_prob[torch.cat([state[:, None], ids[:, :-1]], 1)], ids[:, -1]


def chi_square(observed: Tensor, other: Tensor) -> float:
    """The p-value of two samples of transitions (V, V) coming from one chain; cells with 10 or more."""
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    total, degrees = 0.0, 0
    for a, b in zip(observed, other, strict=True):
        both = a + b
        kept = both >= 10
        if int(kept.sum()) < 2:
            continue
        share = a[kept].sum() / both[kept].sum()
        wanted = both[kept] * share
        total += float(((a[kept] - wanted) ** 2 / (wanted * (1 - share))).sum())
        degrees += int(kept.sum()) - 1
    return float(stats.chi2.sf(total, degrees))


def transitions(tokens: list[int]) -> Tensor:
    pairs = torch.tensor([[0, *tokens[:-1]], tokens])
    return torch.bincount(pairs[0] * V + pairs[1], minlength=V * V).view(V, V).double()


def plain(model: Predictor, count: int, **options: Any) -> list[int]:
    return generate(model, Letters(V + 1), ("",), count, SamplerConfig.parse({"seed": 7, **options}))[0].tokens


def compared(count: int, config: dict[str, Any], **options: Any) -> float:
    target, draft = Table(1, 1.5), Table(2, 1.0)
    sampler = SamplerConfig.parse({"seed": 1, **options})
    found = speculate(target, draft, Letters(V + 1), "", count, SpeculativeConfig.parse(config), sampler)
    assert found.finish_reason == "length"
    wanted = sum(float(target.log_prob[a, b]) for a, b in zip([0, *found.tokens[:-1]], found.tokens, strict=True))
    assert found.log_prob == pytest.approx(wanted, abs=1e-6)
    return chi_square(transitions(found.tokens), transitions(plain(target, count, **options)))


CONFIGS: list[dict[str, Any]] = [
    {"tokens": 3}, {"tokens": 4, "candidates": [3]}, {"tokens": 2, "candidates": [3, 2]},
    {"tokens": 3, "candidates": [3], "replace": True},
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS)
def test_distributed_as_the_model(config: dict[str, Any]) -> None:
    assert compared(1500, config) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "config", "options"),
    [
        (50_000, CONFIGS[1], {}),
        (20_000, CONFIGS[0], {"temperature": 0.7, "top_k": 4}),
        (20_000, CONFIGS[2], {"top_p": 0.9}),
        (20_000, CONFIGS[3], {"temperature": 1.3}),
    ],
)
def test_distributed_as_the_model_over_a_long_text(count: int, config: dict[str, Any], options: dict[str, Any]) -> None:
    assert compared(count, config, **options) > 0.01


def test_a_wrong_judge_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates drawn from q squared, and judged by q."""

    def sharper(q: Tensor, *others: Any) -> list[int]:
        return candidates(q**2 / (q**2).sum(), *others)

    monkeypatch.setattr(importlib.import_module("unrolled.generate.speculative"), "candidates", sharper)
    assert compared(4000, {"tokens": 3, "candidates": [3]}) < 1e-6


def test_one_position() -> None:
    """The verdict alone, and more candidates are never taken more rarely."""
    p, q = (torch.softmax(x, 0) for x in torch.randn(2, V, generator=torch.Generator().manual_seed(1)).double())
    shares = []
    for replace in (True, False):
        for count in (1, 2, 3, 4):
            drawn, found, taken = torch.Generator().manual_seed(4), torch.zeros(V), 0
            for _ in range(2500):
                token, accepted = verdict(p, q, candidates(q, count, replace, drawn), replace, drawn)
                found[token] += 1
                taken += accepted
            wanted = 2500 * p
            stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
            assert stats.chi2.sf(float(((found - wanted) ** 2 / wanted).sum()), V - 1) > 0.01
            shares.append(taken / 2500)
    error = 3 * (0.25 / 2500 * 2) ** 0.5
    for four in (shares[:4], shares[4:]):
        assert all(b >= a - error for a, b in itertools.pairwise(four))
    assert shares[6] > shares[2], "without replacement more is taken"


def standard(target: Table, draft: Table, count: int, length: int, generator: torch.Generator) -> list[int]:
    """Speculative sampling with one candidate as it is usually written, on tables."""

    def drawn(weights: Tensor) -> int:
        total = weights.cumsum(0)
        uniform = torch.rand((), generator=generator, dtype=torch.float64) * total[-1]
        return int((total <= uniform).sum())

    tokens, last = [], 0
    while len(tokens) < count:
        proposed, before = [], last
        for _ in range(min(length, 99)):
            proposed.append(drawn(draft.log_prob[before].exp()))
            before = proposed[-1]
        for token in proposed:
            p, q = target.log_prob[last].exp(), draft.log_prob[last].exp()
            accepted = bool(torch.rand(1, generator=generator, dtype=torch.float64) < p[token] / q[token])
            last = token if accepted else drawn((p - q).clamp(min=0))
            tokens.append(last)
            if not accepted:
                break
        else:
            last = drawn(target.log_prob[last].exp())
            tokens.append(last)
    return tokens[:count]


def test_draw_for_draw_as_it_is_usually_written() -> None:
    target, draft = Table(3, 1.5), Table(4, 1.0)
    config, sampler = SpeculativeConfig(tokens=4), SamplerConfig(seed=5)
    found = speculate(target, draft, Letters(V + 1), "", 300, config, sampler, sample=2)
    # near the end fewer are drafted, since a text that is as long as it may be is not gone on with
    assert found.tokens[:290] == standard(target, draft, 290, 4, generator_of(5, 2))
    assert found.calls == target.windows


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("options", [{}, {"repetition": 1.5, "no_repeat": 2}])
def test_greedy_is_greedy(config: dict[str, Any], options: dict[str, Any]) -> None:
    sampler = SamplerConfig.parse({"temperature": 0, **options})
    for seed in range(6):
        model, draft = random_predictor(7, seed), random_predictor(7, seed + 50)
        wanted = generate(model, Letters(7), ("ab",), 20, sampler)[0]
        found = speculate(model, draft, Letters(7), "ab", 20, SpeculativeConfig.parse(config), sampler)
        assert (found.tokens, found.text, found.finish_reason) == (wanted.tokens, wanted.text, wanted.finish_reason)
        assert found.log_prob == pytest.approx(wanted.log_prob, abs=1e-9)


def test_a_model_that_drafts_for_itself_is_always_right() -> None:
    model = random_predictor(7, 2)
    sampler = SamplerConfig.parse({"seed": 3, "bias": {6: -100.0}})
    found = speculate(model, model, Letters(7), "", 40, SpeculativeConfig(tokens=4), sampler)
    assert (found.drafted, found.accepted) == (32, 32)
    assert found.calls == 8


def test_constraints_hold() -> None:
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    sampler = SamplerConfig.parse({"constrain": {"name": "regex", "pattern": "(ab|ba){3}c"}})
    for seed in range(5):
        config = SpeculativeConfig(tokens=4, candidates=(2, 2))
        found = speculate(random_predictor(7, seed), random_predictor(7, 9), Letters(7), "", 20, config, sampler)
        assert len(found.text) == 7
        assert found.text[-1] == "c"


def test_refused() -> None:
    with pytest.raises(UsageError, match="1 to 256"):
        speculate(Table(1, 1), Table(2, 1), Letters(V + 1), "", 9, SpeculativeConfig(candidates=(20, 20)))
    with pytest.raises(UsageError, match="1 to 256"):
        speculate(Table(1, 1), Table(2, 1), Letters(V + 1), "", 9, SpeculativeConfig(candidates=(0,)))
