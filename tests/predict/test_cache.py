"""The continuous cache against a loop over the tokens, written from the paper."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from unrolled.data import TokenSplit
from unrolled.evaluate import EvalConfig, evaluate_predictor
from unrolled.optim.dynamic import DynamicConfig
from unrolled.predict import CacheConfig, CachePredictor, DynamicPredictor, NeuralPredictor

N = 90
IDS = np.random.default_rng(7).integers(0, 20, N) // 2 * 2  # ten ids: many return


def settings(**more: Any) -> CacheConfig:
    return CacheConfig.parse({"length": 12, "theta": 0.8, "weight": 0.3, **more})


def by_hand(base: NeuralPredictor, config: CacheConfig, ids: np.ndarray) -> list[float]:
    """Log-probability of every token, by sums over one token after another."""
    state, hiddens, found = base.begin(1), [], []
    for t, token in enumerate(ids.tolist()):
        log_prob, hidden = base.predict(state)
        assert hidden is not None
        p = log_prob[0].exp()
        low = max(0, t - config.length)
        usable = t > 0 if config.partial else t > config.length
        if usable:
            scores = [math.exp(config.theta * float(hiddens[i] @ hidden[0])) for i in range(low, t)]
            cached = torch.zeros_like(p)
            for i, score in zip(range(low, t), scores, strict=True):
                cached[ids[i]] += score / sum(scores)
            p = (1 - config.weight) * p + config.weight * cached
        found.append(float(p[token].log()))
        hiddens.append(hidden[0])
        state = base.observe(state, torch.tensor([token]))
    return found


@pytest.mark.parametrize("partial", [True, False])
@pytest.mark.parametrize("length", [1, 12, 200])
def test_every_token_is_that_of_the_formula(predictor: Any, tokenizer: Any, partial: bool, length: int) -> None:
    base, config = predictor(), settings(partial=partial, length=length)
    wanted = by_hand(base, config, IDS)
    cached = CachePredictor(base, config)
    for window in (1, 7, 40, 1000):
        result = evaluate_predictor(cached, TokenSplit(IDS, tokenizer.tables), EvalConfig(window=window))
        assert -result.nats == pytest.approx(sum(wanted), rel=1e-11)
    state, stepped = cached.begin(1), []
    for token in IDS.tolist():
        log_prob, _ = cached.predict(state)
        assert float(log_prob.exp().sum()) == pytest.approx(1, abs=1e-12)
        stepped.append(float(log_prob[0, token]))
        state = cached.observe(state, torch.tensor([token]))
    np.testing.assert_allclose(stepped, wanted, rtol=1e-10)


def test_rows_do_not_mix_and_resets_empty_the_cache(predictor: Any, tokenizer: Any) -> None:
    base, starts = predictor(), np.array([0, 13, 14, 50, 77])
    cached = CachePredictor(base, settings())
    borders = [0, *starts[1:].tolist(), N]
    wanted = sum(sum(by_hand(base, settings(), IDS[a:b])) for a, b in itertools.pairwise(borders))
    for window in (1, 9, 200):
        split = TokenSplit(IDS, tokenizer.tables, starts=starts)
        assert -evaluate_predictor(cached, split, EvalConfig(window=window)).nats == pytest.approx(wanted, rel=1e-11)
    columns = evaluate_predictor(cached, TokenSplit(IDS, tokenizer.tables), EvalConfig(columns=3, window=11))
    apart = sum(sum(by_hand(base, settings(), IDS[30 * i : 30 * i + 30])) for i in range(3))
    assert -columns.nats == pytest.approx(apart, rel=1e-11)


def test_around_dynamic_evaluation(predictor: Any, tokenizer: Any) -> None:
    model = predictor().model
    split = TokenSplit(IDS, tokenizer.tables)
    rule = DynamicConfig(rule="sgd", lr=0.05)
    nats = []
    for window in (1, 5, 33):
        with CachePredictor(DynamicPredictor(model, 0, rule), settings()) as cached:
            result = evaluate_predictor(cached, split, EvalConfig(window=window))
            nats.append(result.nats)
    np.testing.assert_allclose(nats, nats[0], rtol=1e-10)
    assert result.protocol.kind == "dynamic + cache"
    assert set(result.protocol.options) == {"dynamic", "cache"}
    static = evaluate_predictor(CachePredictor(NeuralPredictor(model, 0), settings()), split, EvalConfig())
    assert static.protocol.kind == "cache"
    assert abs(static.nats - nats[0]) > 1e-3
