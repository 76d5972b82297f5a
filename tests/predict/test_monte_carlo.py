"""Monte-Carlo dropout against its masks written out, one sample after another."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data import TokenSplit
from unrolled.evaluate import EvalConfig, evaluate_predictor
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import MonteCarloConfig, MonteCarloPredictor, NeuralPredictor

V, N, START, SAMPLES, WINDOW = 20, 43, 3, 4, 9
IDS = np.random.default_rng(5).integers(0, V, N)
LOCKED = {"input": 0.3, "between": 0.2, "state": 0.25, "output": 0.4}
MODELS: dict[str, dict[str, Any]] = {
    "locked": {"cell": "lstm", "layers": 2, "dropout": LOCKED},
    "steps": {"cell": "gru", "layers": 2, "dropout": {**LOCKED, "mask": "step", "state_mask": "step"}},
    "awd": {"cell": "lstm", "dropout": {**LOCKED, "weight": 0.5, "embedding": 0.2}},
    "zoneout": {"cell": "lstm", "dropout": {"zoneout": {"h": 0.1, "c": 0.4}}},
    "mos": {"cell": "lstm", "head": {"name": "mos", "components": 2}, "dropout": {**LOCKED, "projected": 0.3}},
    "pointer": {"cell": "lstm", "head": {"name": "pointer", "length": 5}, "dropout": LOCKED},
    "projected": {"cell": "lstm", "head": {"name": "softmax", "project": 4}, "dropout": {"projected": 0.3}},
}
every_model = pytest.mark.parametrize("key", MODELS)


def model(key: str) -> LanguageModel:
    torch.manual_seed(2)
    made = LanguageModel(ModelConfig.parse({"width": 6, **MODELS[key]}), V).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return made.eval()


def settings(**more: Any) -> MonteCarloConfig:
    return MonteCarloConfig.parse({"samples": SAMPLES, "window": WINDOW, **more})


def split(tokenizer: Any, **more: Any) -> TokenSplit:
    return TokenSplit(IDS, tokenizer.tables, **more)


def masked_losses(made: LanguageModel, rows: int, seed_rank: int, config: MonteCarloConfig) -> Tensor:
    """(rows, N) nats of rows that each read the whole text under masks of their own, window by window."""
    text = torch.from_numpy(IDS).expand(rows, -1)
    inputs = torch.cat([torch.full((rows, 1), START), text[:, :-1]], 1)
    dropout, state, parts = made.config.dropout.scaled(config.rates), None, []
    for number, low in enumerate(range(0, N, WINDOW)):
        masks = made.draw_masks(rows, WINDOW, RandomStreams(config.seed, seed_rank), number, dropout)
        time = min(WINDOW, N - low)
        if time < WINDOW:  # the tail of the text: only the first steps of the masks are used
            from unrolled.model.dropout import cut_masks

            masks = cut_masks(masks, 0, time)
        x, y = inputs[:, low : low + time], text[:, low : low + time]
        _, nll, state = made.loss(x, y, state, None, None, masks)
        parts.append(nll.detach())
    return torch.cat(parts, 1)


@every_model
def test_the_arithmetic_mean_is_that_of_whole_passes(key: str, tokenizer: Any) -> None:
    made, config = model(key), settings(rates=0.8)
    if key == "awd":  # masks of weights are shared by the rows of a batch, so every sample is a pass of its own
        each = torch.cat([masked_losses(made, 1, k, config) for k in range(SAMPLES)])
    else:
        each = masked_losses(made, SAMPLES, 0, config)
    assert float((each[0] - each[1]).abs().max()) > 1e-3
    wanted = -float((each.neg().exp().mean(0)).log().sum())
    for window in (1, 5, 200):
        predictor = MonteCarloPredictor(made, START, config)
        result = evaluate_predictor(predictor, split(tokenizer), EvalConfig(window=window))
        assert result.nats == pytest.approx(wanted, rel=1e-10)
    assert result.protocol.kind == "Monte-Carlo dropout"
    assert result.protocol.options["dropout"]["rates"] == 0.8


@every_model
@pytest.mark.parametrize("mean", ["arithmetic", "geometric", "power"])
def test_predictions_are_distributions_and_agree_with_windows(key: str, mean: str, tokenizer: Any) -> None:
    made, config = model(key), settings(mean=mean)
    predictor = MonteCarloPredictor(made, START, config)
    state, total = predictor.begin(1), 0.0
    for token in IDS.tolist():
        log_prob, _ = predictor.predict(state)
        assert float(log_prob.exp().sum()) == pytest.approx(1, abs=1e-10)
        total -= float(log_prob[0, token])
        state = predictor.observe(state, torch.tensor([token]))
    again = evaluate_predictor(MonteCarloPredictor(made, START, config), split(tokenizer), EvalConfig(window=17))
    assert again.nats == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize("mean", ["geometric", "power"])
def test_the_other_means_start_each_window_from_the_model_without_dropout(mean: str, tokenizer: Any) -> None:
    made, config = model("locked"), settings(mean=mean)
    text, total, state = torch.from_numpy(IDS), 0.0, None
    inputs = torch.cat([torch.tensor([START]), text[:-1]])
    for number, low in enumerate(range(0, N, WINDOW)):
        time = min(WINDOW, N - low)
        x = inputs[low : low + time].unsqueeze(0)
        masks = made.draw_masks(SAMPLES, WINDOW, RandomStreams(config.seed), number)
        from unrolled.core import tree

        spread = None if state is None else tree.repeat_rows(state, SAMPLES)
        out = made(x.expand(SAMPLES, -1), spread, None, masks)
        log_prob = made.head.log_prob(out.dropped)[0]
        if mean == "geometric":
            mixed = torch.log_softmax(log_prob.mean(0), -1)
        else:
            mixed = torch.log_softmax((log_prob.exp() ** config.power).mean(0).log() / config.power, -1)
        total -= float(mixed.gather(1, text[low : low + time].unsqueeze(1)).sum().detach())
        state = made(x, state).state
    result = evaluate_predictor(MonteCarloPredictor(made, START, config), split(tokenizer), EvalConfig())
    assert result.nats == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_resets(mean: str, tokenizer: Any) -> None:
    made, starts = model("locked"), np.array([0, 4, 5, 30])
    nats = [
        evaluate_predictor(
            MonteCarloPredictor(made, START, settings(mean=mean)),
            split(tokenizer, starts=starts),
            EvalConfig(window=window),
        ).nats
        for window in (1, 6, 100)
    ]
    np.testing.assert_allclose(nats, nats[0], rtol=1e-10)
    whole = evaluate_predictor(MonteCarloPredictor(made, START, settings(mean=mean)), split(tokenizer), EvalConfig())
    assert abs(whole.nats - nats[0]) > 1e-3


def test_vanishing_rates_are_the_model_itself(tokenizer: Any) -> None:
    made = model("locked")
    predictor = MonteCarloPredictor(made, START, settings(rates=1e-12))
    static = evaluate_predictor(NeuralPredictor(made, START), split(tokenizer), EvalConfig()).nats
    assert evaluate_predictor(predictor, split(tokenizer), EvalConfig()).nats == pytest.approx(static, rel=1e-9)
    more = [
        evaluate_predictor(MonteCarloPredictor(made, START, settings(seed=seed)), split(tokenizer), EvalConfig()).nats
        for seed in (1, 2, 1)
    ]
    assert more[0] == more[2] != more[1]
    assert math.isfinite(more[1])


def test_refusals() -> None:
    torch.manual_seed(0)
    plain = LanguageModel(ModelConfig.parse({"width": 4}), V)
    with pytest.raises(UsageError, match="without dropout"):
        MonteCarloPredictor(plain, START, settings())
    with pytest.raises(UsageError, match=r"rate times 3 would be 1\.2"):
        MonteCarloPredictor(model("locked"), START, settings(rates=3.0))
