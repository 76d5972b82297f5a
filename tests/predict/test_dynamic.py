"""Dynamic evaluation against updates written out by hand, its state, and that nothing is left behind."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unrolled.core import tree
from unrolled.core.errors import UsageError
from unrolled.data import TokenSplit
from unrolled.evaluate import EvalConfig, evaluate_predictor
from unrolled.model import LanguageModel, ModelConfig
from unrolled.optim.dynamic import DYNAMIC_PRESETS, DynamicConfig, DynamicRule, dynamic_preset
from unrolled.predict import CacheConfig, CachePredictor, DynamicPredictor, NeuralPredictor, gradient_statistics

V, START = 11, 3
IDS = np.random.default_rng(4).integers(0, V, 103)
MODELS: dict[str, dict[str, Any]] = {
    "lstm": {"width": 6, "layers": 2, "cell": "lstm"},
    "tied": {"width": 6, "cell": "gru", "embedding": {"tied": True}},
    "mogrifier": {"width": 5, "cell": {"name": "mogrifier", "rounds": 3, "cell": {"name": "mlstm"}}},
    "qrnn": {"width": 6, "layers": 2, "cell": {"name": "qrnn", "window": 2}},
    "mos": {"width": 6, "cell": "lstm", "head": {"name": "mos", "components": 3}},
    "pointer": {"width": 6, "cell": "lstm", "head": {"name": "pointer", "length": 4}},
    "dropped": {"width": 6, "cell": "lstm", "dropout": {"weight": 0.5, "input": 0.3, "zoneout": {"c": 0.2}}},
}
every_model = pytest.mark.parametrize("key", MODELS)


def model(key: str = "lstm") -> LanguageModel:
    torch.manual_seed(2)
    made = LanguageModel(ModelConfig.parse(MODELS[key]), V).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    return made.eval()


def split(tokenizer: Any, ids: np.ndarray = IDS, **more: Any) -> TokenSplit:
    tables = tokenizer.tables
    small = type(tables)(*(getattr(tables, name)[:V] for name in tables.__dataclass_fields__))
    return TokenSplit(ids, small, **more)


def settings(rule: str = "rms", **more: Any) -> DynamicConfig:
    lr = 0.05 if rule != "rms" else 2e-3
    return DynamicConfig.parse({"rule": rule, "lr": lr, "decay": 0.02, "columns": 3, **more})


def by_hand(made: LanguageModel, config: DynamicConfig, statistics: dict[str, Tensor] | None) -> list[float]:
    """The losses of every token, by the formulas, one segment after another and one weight after another."""
    made = copy.deepcopy(made)
    parameters = {name: p for name, p in made.named_parameters() if statistics is None or name in statistics}
    first = {name: p.detach().clone() for name, p in parameters.items()}
    text = torch.from_numpy(IDS)
    inputs = torch.cat([torch.tensor([START]), text[:-1]])
    state, losses, n, norm = None, [], config.segment, 1.0
    if statistics is not None:
        means = [float(s.mean()) for s in statistics.values()]
        norm = {
            "tensors": sum(means) / len(means),
            "tensor_sum": sum(means),
            "scalars": float(torch.cat([s.flatten() for s in statistics.values()]).mean()),
        }[config.normalize]
    for low in range(0, len(IDS), n):
        x, y = inputs[low : low + n].unsqueeze(0), text[low : low + n].unsqueeze(0)
        total, nll, state = made.loss(x, y, state)
        losses += nll[0].tolist()
        state = tree.detach(state)
        if y.shape[1] < n:
            break
        grads = torch.autograd.grad(total / (n if config.loss == "mean" else 1), list(parameters.values()))
        with torch.no_grad():
            for (name, p), g in zip(parameters.items(), grads, strict=True):
                step = -config.lr * g
                if config.rule == "rms":
                    assert statistics is not None
                    step = step / (statistics[name] + config.epsilon)
                    step = step + torch.clamp(config.decay * statistics[name] / norm, max=1) * (first[name] - p)
                elif config.rule == "sgd_decay":
                    step = step + config.decay * (first[name] - p)
                p += step
    return losses


@every_model
@pytest.mark.parametrize("rule", ["sgd", "sgd_decay", "rms"])
@pytest.mark.parametrize("segment", [1, 5])
def test_every_loss_is_that_of_the_formulas(key: str, rule: str, segment: int, tokenizer: Any) -> None:
    made, config = model(key), settings(rule, segment=segment)
    statistics = gradient_statistics(made, START, split(tokenizer), config) if rule == "rms" else None
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    wanted = by_hand(made, config, statistics)
    with DynamicPredictor(made, START, config, statistics) as predictor:
        result = evaluate_predictor(predictor, split(tokenizer), EvalConfig(window=31))
        assert any(not torch.equal(p, before[name]) for name, p in made.named_parameters())
    assert result.nats == pytest.approx(sum(wanted), rel=1e-11)
    assert all(torch.equal(p, before[name]) for name, p in made.named_parameters())
    static = evaluate_predictor(NeuralPredictor(made, START), split(tokenizer), EvalConfig())
    assert abs(static.nats - result.nats) > 1e-3
    assert result.protocol.comparable_key != static.protocol.comparable_key


@every_model
@pytest.mark.parametrize("rule", ["sgd", "sgd_decay", "rms"])
def test_learning_rate_zero_is_static(key: str, rule: str, tokenizer: Any) -> None:
    made, config = model(key), settings(rule, segment=4).model_copy(update={"lr": 0.0})
    statistics = gradient_statistics(made, START, split(tokenizer), config) if rule == "rms" else None
    with DynamicPredictor(made, START, config, statistics) as predictor:
        result = evaluate_predictor(predictor, split(tokenizer), EvalConfig(window=8))
    static = evaluate_predictor(NeuralPredictor(made, START), split(tokenizer), EvalConfig(window=4))
    assert result.nats == pytest.approx(static.nats, rel=1e-14)


@pytest.mark.parametrize("rule", ["sgd", "sgd_decay", "rms"])
def test_a_change_of_topic_is_learned(rule: str, tokenizer: Any) -> None:
    """The model is trained on one half of the symbols; the text turns to the other half, which it then learns."""
    rng = np.random.default_rng(6)
    known, shifted = rng.integers(0, 5, 600), rng.integers(5, V, 600)
    torch.manual_seed(3)
    made = LanguageModel(ModelConfig.parse(MODELS["lstm"]), V).double()
    optimizer = torch.optim.Adam(made.parameters(), lr=0.02)
    before, after = torch.from_numpy(known[:-1].copy())[None], torch.from_numpy(known[1:].copy())[None]
    for _ in range(40):
        optimizer.zero_grad()
        (made.loss(before, after)[0] / 599).backward()
        optimizer.step()
    made.eval()
    config = settings(rule, lr=0.3 if rule != "rms" else 3e-3, decay=1e-3)
    statistics = gradient_statistics(made, START, split(tokenizer, known), config) if rule == "rms" else None
    text = split(tokenizer, np.concatenate([known[:100], shifted]))
    with DynamicPredictor(made, START, config, statistics) as predictor:
        dynamic = evaluate_predictor(predictor, text, EvalConfig())
    static = evaluate_predictor(NeuralPredictor(made, START), text, EvalConfig())
    assert dynamic.nats < 0.7 * static.nats


@pytest.mark.parametrize("normalize", ["tensors", "tensor_sum", "scalars"])
@pytest.mark.parametrize("loss", ["mean", "sum"])
def test_flavours(normalize: str, loss: str, tokenizer: Any) -> None:
    made = model()
    config = settings(normalize=normalize, loss=loss, statistic="sum" if loss == "mean" else "mean", decay=0.7)
    statistics = gradient_statistics(made, START, split(tokenizer), config)
    with DynamicPredictor(made, START, config, statistics) as predictor:
        nats = evaluate_predictor(predictor, split(tokenizer), EvalConfig()).nats
    assert nats == pytest.approx(sum(by_hand(made, config, statistics)), rel=1e-11)


@every_model
def test_statistics_are_those_of_the_formula(key: str, tokenizer: Any) -> None:
    made, config = model(key), settings(segment=4)
    length = len(IDS) // 3
    columns = torch.from_numpy(IDS[: 3 * length].reshape(3, length))
    inputs = torch.cat([torch.full((3, 1), START), columns[:, :-1]], 1)
    squares, state, batches = [torch.zeros_like(p) for p in made.parameters()], None, length // 4
    for low in range(0, 4 * batches, 4):
        total, _, state = made.loss(inputs[:, low : low + 4], columns[:, low : low + 4], state)
        grads = torch.autograd.grad(total / 12, list(made.parameters()))
        squares = [s + g * g for s, g in zip(squares, grads, strict=True)]
        state = tree.detach(state)
    found = gradient_statistics(made, START, split(tokenizer), config)
    for value, total in zip(found.values(), squares, strict=True):
        torch.testing.assert_close(value, (total / batches).sqrt(), rtol=1e-10, atol=1e-14)
    summed = gradient_statistics(made, START, split(tokenizer), settings(segment=4, statistic="sum", batches=2))
    assert not torch.allclose(next(iter(summed.values())), next(iter(found.values())))


def test_the_published_parameters_and_the_paper_agree(tokenizer: Any) -> None:
    """Old settings (sums of squares, sum over tensors) are those of the defaults, converted."""
    made = model()
    old = settings(statistic="sum", normalize="tensor_sum", lr=2e-3, decay=0.02, epsilon=1e-3)
    batches, tensors = len(IDS) // 3 // 5, len(list(made.parameters()))
    new = settings(lr=2e-3 / math.sqrt(batches), decay=0.02 / tensors, epsilon=1e-3 / math.sqrt(batches))
    nats = []
    for config in (old, new):
        statistics = gradient_statistics(made, START, split(tokenizer), config)
        with DynamicPredictor(made, START, config, statistics) as predictor:
            nats.append(evaluate_predictor(predictor, split(tokenizer), EvalConfig()).nats)
    assert nats[0] == pytest.approx(nats[1], rel=1e-10)


@every_model
def test_step_by_step_equals_windows(key: str, tokenizer: Any) -> None:
    made, config, nats = model(key), settings("sgd_decay"), []
    for window in (1, 4, 7, 50):
        with DynamicPredictor(made, START, config) as predictor:
            nats.append(evaluate_predictor(predictor, split(tokenizer), EvalConfig(window=window)).nats)
    with DynamicPredictor(made, START, config) as predictor:
        state, total = predictor.begin(1), 0.0
        for token in IDS.tolist():
            log_prob, hidden = predictor.predict(state)
            assert hidden is not None
            total -= float(log_prob[0, token])
            state = predictor.observe(state, torch.tensor([token]))
    np.testing.assert_allclose([*nats, total], nats[0], rtol=1e-10)


def test_an_old_state_still_predicts_what_it_did_but_for_the_parameters(tokenizer: Any) -> None:
    """Reading does not change the state that it is given."""
    made = model()
    with DynamicPredictor(made, START, settings("sgd")) as predictor:
        state = predictor.window(predictor.begin(2), torch.from_numpy(IDS[:14].reshape(2, 7))).state
        kept = tree.map_tree(Tensor.clone, state)
        predictor.window(state, torch.from_numpy(IDS[20:32].reshape(2, 6)))
        for old, new in zip(tree.leaves(kept), tree.leaves(state), strict=True):
            assert torch.equal(old, new)


@every_model
def test_resets_restart_the_state_and_not_the_parameters(key: str, tokenizer: Any) -> None:
    made, starts = model(key), np.array([0, 7, 8, 10, 40, 99])
    config, nats = settings("sgd_decay"), []
    for window in (1, 3, 5, 200):
        with DynamicPredictor(made, START, config) as predictor:
            nats.append(evaluate_predictor(predictor, split(tokenizer, starts=starts), EvalConfig(window=window)).nats)
    np.testing.assert_allclose(nats, nats[0], rtol=1e-10)
    with DynamicPredictor(made, START, config) as predictor:
        carried = evaluate_predictor(predictor, split(tokenizer), EvalConfig()).nats
    assert abs(nats[0] - carried) > 1e-3
    # with a negligible learning rate resets are those of the static predictor
    with DynamicPredictor(made, START, config.model_copy(update={"lr": 1e-300})) as predictor:
        still = evaluate_predictor(predictor, split(tokenizer, starts=starts), EvalConfig()).nats
    static = evaluate_predictor(NeuralPredictor(made, START), split(tokenizer, starts=starts), EvalConfig()).nats
    assert still == pytest.approx(static, rel=1e-12)


@pytest.mark.parametrize("window", [3, 50])
def test_a_reset_under_a_cache_leaves_the_segment_whole(window: int, tokenizer: Any) -> None:
    """With next to no share of the cache the figure is that of dynamic evaluation alone, in several columns too."""
    starts, config = np.array([0, 7, 18, 30, 31]), settings("sgd", segment=5, lr=0.05)
    text, on = split(tokenizer, starts=starts), EvalConfig(columns=2, window=window)
    with DynamicPredictor(model(), START, config) as alone:
        wanted = evaluate_predictor(alone, text, on).nats
    with CachePredictor(DynamicPredictor(model(), START, config), CacheConfig(length=4, weight=1e-12)) as cached:
        assert evaluate_predictor(cached, text, on).nats == pytest.approx(wanted, rel=1e-9)


def test_only_the_named_parameters_adapt(tokenizer: Any) -> None:
    made, config = model("tied"), settings("sgd", parameters=("head.*", "embedding.weight"))
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    with DynamicPredictor(made, START, config) as predictor:
        evaluate_predictor(predictor, split(tokenizer), EvalConfig())
        changed = {name for name, p in made.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"embedding.weight", "head.bias"}


def test_a_tied_matrix_is_updated_once() -> None:
    made = model("tied")
    rule = DynamicRule(settings("sgd", lr=1.0), dict(made.named_parameters()))
    assert made.head.weight is made.embedding.weight
    before = made.embedding.weight.detach().clone()
    rule.update({name: torch.ones_like(p) for name, p in made.named_parameters()})
    torch.testing.assert_close(made.embedding.weight.detach(), before - 1, rtol=0, atol=1e-15)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_weights_are_restored_when_it_is_interrupted(error: type[BaseException], tokenizer: Any) -> None:
    made = model()
    before = {name: p.detach().clone() for name, p in made.named_parameters()}

    def stop(*_: Any) -> None:
        if any(not torch.equal(p, before[name]) for name, p in made.named_parameters()):
            raise error

    with pytest.raises(error), DynamicPredictor(made, START, settings("sgd")) as predictor:
        evaluate_predictor(predictor, split(tokenizer), EvalConfig(window=5), stop)
    assert all(torch.equal(p, before[name]) for name, p in made.named_parameters())


def test_presets_are_three_published_flavours() -> None:
    assert {"krause", "mos", "lamb"} <= set(DYNAMIC_PRESETS)
    flavours = {(c.loss, c.statistic, c.normalize) for c in DYNAMIC_PRESETS.values() if c.rule == "rms"}
    assert flavours == {("mean", "mean", "tensors"), ("mean", "sum", "tensor_sum"), ("sum", "mean", "scalars")}
    with pytest.raises(UsageError, match="krause"):
        dynamic_preset("krauze")


def test_refusals(tokenizer: Any) -> None:
    made = model()
    with pytest.raises(UsageError, match="statistics"):
        DynamicPredictor(made, START, settings())
    with pytest.raises(UsageError, match=r"no parameter matches 'nothing\.\*'"):
        DynamicPredictor(made, START, settings("sgd", parameters=("nothing.*",)))
    with pytest.raises(UsageError, match="too few for 100 columns"):
        gradient_statistics(made, START, split(tokenizer), settings(columns=100))
