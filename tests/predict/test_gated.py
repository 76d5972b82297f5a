"""Dynamic evaluation with gates: what they are at their ends, and what they learn."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conformance.predictors.build import IDS, _tokenizer, parameters, reader
from unrolled.core.errors import UsageError
from unrolled.data import TokenSplit
from unrolled.optim.dynamic import DynamicConfig, DynamicRule
from unrolled.optim.gates import Gates, fisher
from unrolled.predict import DynamicPredictor, NeuralPredictor
from unrolled.predict.gating import _moved, learn_gates


def ones(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.ones_like(p) for name, p in model.named_parameters()}


def gates_at(model: nn.Module, step: float, pull: float) -> Gates:
    """Gates that always say the same: logits, not shares."""
    gates = Gates(tuple(name for name, _ in model.named_parameters()))
    with torch.no_grad():
        gates.second_bias.copy_(torch.tensor([step, pull]))
    return gates


def dynamic(reader: NeuralPredictor, gates: Gates | None = None, **options: Any) -> DynamicPredictor:
    config = DynamicConfig.model_validate({"segment": 3, "lr": 0.4, "decay": 0.2, **options})
    held = None if gates is None else (gates, "")
    return DynamicPredictor(reader.model, reader.start_id, config, ones(reader.model), gates=held)


def read(predictor: DynamicPredictor) -> Tensor:
    with predictor:
        return predictor.window(predictor.begin(1), IDS[:1]).nll


def test_closed_gates_change_nothing() -> None:
    model = reader()
    before = parameters(model)
    predictor = dynamic(model, gates_at(model.model, -1e4, -1e4), rule="gated")
    found = predictor.window(predictor.begin(1), IDS[:1]).nll
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(model), strict=True)), "without a restore"
    assert torch.equal(found, read(dynamic(reader(), rule="sgd", lr=0.0)))


def test_constant_gates_are_plain_descent_with_a_pull() -> None:
    model = reader()
    gates = gates_at(model.model, 0.3, -0.8)
    step, pull = torch.sigmoid(gates.second_bias.detach()[0]).tolist()
    found = read(dynamic(model, gates, rule="gated"))
    wanted = read(dynamic(reader(), rule="sgd_decay", lr=0.4 * step, decay=0.2 * pull))
    assert float((found - wanted).abs().max()) < 1e-7, "the shares are float32"
    assert float((found - read(dynamic(reader(), rule="sgd", lr=0.4 * step))).abs().max()) > 1e-4
    double = gates.double()
    step, pull = torch.sigmoid(double.second_bias.detach()[0]).tolist()
    wanted = read(dynamic(reader(), rule="sgd_decay", lr=0.4 * step, decay=0.2 * pull))
    assert float((read(dynamic(reader(), double, rule="gated")) - wanted).abs().max()) < 1e-12


def test_the_pull_is_the_gradient_of_the_elastic_penalty() -> None:
    torch.manual_seed(1)
    p = nn.Parameter(torch.randn(4, 3, dtype=torch.float64))
    statistics = {"w": torch.rand(4, 3, dtype=torch.float64) + 0.1}
    weights = fisher(statistics)["w"]
    assert float(weights.mean()) == pytest.approx(1)
    gates = Gates(("w",)).double()
    with torch.no_grad():
        gates.second_bias.copy_(torch.tensor([[0.0, 0.0]]))
    rule = DynamicRule(DynamicConfig(rule="gated", lr=1.0, decay=0.5), {"w": p}, statistics, gates)
    anchor = p.detach().clone()
    rule.update({"w": None}, 2.0)
    assert torch.equal(p, anchor), "at the anchor there is none"
    moved = anchor + torch.randn_like(anchor)
    with torch.no_grad():
        p.copy_(moved)
    penalty = (0.5 * weights * (p - anchor).square()).sum()
    (gradient,) = torch.autograd.grad(penalty, p)
    rule.update({"w": torch.zeros_like(p)}, 2.0)
    assert float((p.detach() - (moved - 0.25 * gradient)).abs().max()) < 1e-12
    rule.restore()
    assert torch.equal(p, anchor)


def test_gates_see_the_loss_and_the_norms() -> None:
    gates = Gates(("a", "b"), hidden=5)
    with torch.no_grad():
        gates.second.copy_(torch.randn(2, 5, generator=torch.Generator().manual_seed(1)))
    at = {"a": torch.ones(3), "b": torch.ones(2)}
    before = gates(2.0, at, at)
    for other in (
        gates(3.0, at, at),
        gates(2.0, {**at, "a": 2 * at["a"]}, at),
        gates(2.0, at, {**at, "a": at["a"] / 2}),
    ):
        assert float((other[0][0] - before[0][0]).detach().abs()) > 1e-6
        assert float((other[1][0] - before[1][0]).detach().abs()) > 1e-6


def test_the_derivative_through_updates() -> None:
    """Three updates with fixed gradients, by the graph and by differences in what the gates say."""
    generator = torch.Generator().manual_seed(4)
    names, config = ("a", "b"), DynamicConfig(rule="gated", lr=0.3, decay=0.2)
    sizes = {"a": (2, 3), "b": (4,)}
    trained = {name: torch.randn(size, generator=generator).double() for name, size in sizes.items()}
    weights = {name: torch.rand(size, generator=generator).double() for name, size in sizes.items()}
    drawn = [{n: torch.randn(s, generator=generator).double() for n, s in sizes.items()} for _ in range(4)]
    gates = Gates(names).double()

    def total() -> Tensor:
        now, found = dict(trained), torch.zeros((), dtype=torch.float64)
        for gradients in drawn:
            found = found + sum((gradients[name] * now[name]).sum() for name in names)
            now = _moved(gates, config, 1.0, now, trained, gradients, weights)
        return found

    (found,) = torch.autograd.grad(total(), gates.second_bias)
    for place in ((0, 0), (0, 1), (1, 0), (1, 1)):
        ends = []
        for shift in (1e-6, -2e-6):
            with torch.no_grad():
                gates.second_bias[place] += shift
            ends.append(float(total().detach()))
        with torch.no_grad():
            gates.second_bias[place] += 1e-6
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float(found[place]), rel=1e-5)


def topics(stretches: int, seed: int) -> np.ndarray:
    """Stretches of 40 tokens, each of three symbols of its own."""
    drawn = np.random.default_rng(seed)
    return np.concatenate([drawn.choice(drawn.permutation(12)[:3], 40) for _ in range(stretches)]).astype(np.int64)


@pytest.mark.slow
def test_gates_learn_to_follow_topics() -> None:
    model, tables = reader(torch.float32), _tokenizer().tables
    with torch.no_grad():
        for p in model.model.parameters():
            p.mul_(0.3)  # nearly uniform: what it knows of a topic it learns while reading
    config = DynamicConfig(rule="gated", segment=5, lr=2.0, decay=0.1, updates=40, gate_lr=0.1)
    before, statistics = parameters(model), ones(model.model)
    made = learn_gates(model.model, model.start_id, TokenSplit(topics(12, 1), tables), config, statistics)
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(model), strict=True)), "the parameters are back"
    again = learn_gates(model.model, model.start_id, TokenSplit(topics(12, 1), tables), config, statistics)
    assert all(torch.equal(made[name], again[name]) for name in made), "and the same gates come of the same text"
    text, nats = torch.from_numpy(topics(8, 2)).unsqueeze(0), {}
    begun, learned = (Gates(tuple(statistics)) for _ in range(2))
    learned.load_state_dict(made)
    for name, gates in (("begun", begun), ("learned", learned)):
        with DynamicPredictor(model.model, model.start_id, config, statistics, gates=(gates, "")) as predictor:
            nats[name] = float(predictor.window(predictor.begin(1), text).nll.mean())
    static = float(model.window(model.begin(1), text).nll.mean())
    assert nats["learned"] < nats["begun"] < static


def test_learning_gates_moves_them_and_nothing_else() -> None:
    model, tables = reader(), _tokenizer().tables
    before, statistics = parameters(model), ones(model.model)
    config = DynamicConfig(rule="gated", segment=5, lr=2.0, updates=3, through=2)
    made = learn_gates(model.model, model.start_id, TokenSplit(topics(1, 1), tables), config, statistics)
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(model), strict=True)), "the parameters are back"
    begun = Gates(tuple(statistics))
    assert all(not torch.equal(made[name], value) for name, value in begun.named_parameters() if "second" in name)


def test_what_is_refused() -> None:
    model = reader()
    with pytest.raises(UsageError, match="gated needs gates"):
        dynamic(model, rule="gated")
    split = TokenSplit(topics(1, 1)[:10], _tokenizer().tables)
    with pytest.raises(UsageError, match="too few to learn gates"):
        learn_gates(model.model, 0, split, DynamicConfig(rule="gated"), ones(model.model))
