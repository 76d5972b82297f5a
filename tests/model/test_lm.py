"""The language model as a whole."""

import copy
from operator import attrgetter
from typing import Any

import pytest
import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from conformance.cells.build import CAUSAL, Case
from conformance.material import resets, wave
from conformance.tolerance import assert_close
from families import first_of_each
from unrolled.cells import CELLS
from unrolled.core import tree
from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel, ModelConfig, ModelState, count_params, fit_width
from unrolled.model.embedding import Embedding, EmbeddingConfig

VOCAB = 13
TOKENS = torch.arange(12).view(2, 6) * 5 % VOCAB


def make(**config: Any) -> LanguageModel:
    torch.manual_seed(3)
    return LanguageModel(ModelConfig.parse({"width": 6, "layers": 2, **config}), VOCAB).double()


MODELS: dict[str, dict[str, Any]] = {
    "default": {},
    "tied": {"embedding": {"tied": True}},
    "tied and projected": {"embedding": {"tied": True, "size": 4}},
    "small embedding": {"embedding": {"size": 4, "project": 5}, "head": {"name": "softmax", "project": 3}},
    "residual": {"stack": {"kind": "residual", "mlp": 2.0}, "embedding": {"size": 4}},
    "sum": {"stack": {"kind": "sum"}, "cell": "gru"},
    "mogrifier": {"cell": {"name": "mogrifier", "rank": 2}},
    "mixed": {"cell": ["mlstm", {"name": "lstm", "projection": 4}], "widths": [5, 7]},
}


@pytest.mark.parametrize("name", MODELS)
def test_flops_per_token(name: str) -> None:
    model = make(**MODELS[name], compute={"backend": "reference"})
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        out = model(TOKENS)
        model.head.log_prob(out.raw)
    assert model.flops_per_token() == counter.get_total_flops() / TOKENS.numel()


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_counted_without_being_made(name: str) -> None:
    model = make(**MODELS[name])
    assert count_params(model.config, VOCAB) == model.num_params() == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_state_carried_over_windows(name: str) -> None:
    model = make(**MODELS[name])
    reset = resets(2, 6)
    whole = model.loss(TOKENS, TOKENS.roll(-1, 1), None, reset)
    state, nats = None, []
    for part in (slice(0, 2), slice(2, 5), slice(5, 6)):
        _, nll, state = model.loss(TOKENS[:, part], TOKENS.roll(-1, 1)[:, part], state, reset[:, part])
        state = tree.detach(state)
        nats.append(nll)
    assert_close(torch.cat(nats, 1), whole[1], "nats")
    assert state is not None
    for part, other in zip(tree.leaves(state), tree.leaves(whole[2]), strict=True):
        assert_close(part, other.detach(), "state")
        assert not part.requires_grad


def test_gradients_stop_at_a_detached_state() -> None:
    model = make()
    _, _, state = model.loss(TOKENS, TOKENS)
    total, _, _ = model.loss(TOKENS, TOKENS, tree.detach(state))
    total.backward()
    first = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    _, _, state = model.loss(TOKENS, TOKENS)
    total, _, _ = model.loss(TOKENS, TOKENS, state)
    total.backward()
    second = [p.grad for p in model.parameters() if p.grad is not None]
    assert any(not torch.allclose(a, b) for a, b in zip(first, second, strict=True)), "detaching changes nothing"


@pytest.mark.parametrize("name", MODELS)
def test_trace_is_the_forward_pass_step_by_step(name: str) -> None:
    model = make(**MODELS[name])
    with torch.no_grad():
        outs = [model(TOKENS[:, : t + 1]) for t in range(6)]
    steps = list(model.trace(TOKENS))
    assert len(steps) == 6
    for t, seen in enumerate(steps):
        for layer in (0, 1):
            assert_close(seen[f"{layer}.h"], outs[t].state.cells[layer].h, f"h of layer {layer} at {t}")
        assert all(value.shape[0] == 2 and value.isfinite().all() for value in seen.values())
    later = list(model.trace(TOKENS[:, 3:], outs[2].state))
    for seen, other in zip(later, steps[3:], strict=True):
        assert seen.keys() == other.keys()
        for key in seen:
            assert_close(seen[key], other[key], key)


@pytest.mark.parametrize("name", MODELS)
def test_no_hidden_state(name: str) -> None:
    model = make(**MODELS[name])
    assert not list(model.buffers())
    before = copy.deepcopy(model.state_dict())
    first = model.loss(TOKENS, TOKENS)
    second = model.loss(TOKENS, TOKENS)
    assert torch.equal(first[1], second[1])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    # a function of its parameters: others can be put in their place
    other = {key: value.detach() + 0.1 * wave(*value.shape) for key, value in model.named_parameters()}
    y = functional_call(model, other, (TOKENS,)).raw
    assert not torch.allclose(y, model(TOKENS).raw)
    model.load_state_dict({**model.state_dict(), **other}, strict=False)
    if model.config.embedding.tied:
        model.load_state_dict({**model.state_dict(), "head.weight": other["embedding.weight"]})
    assert_close(y, model(TOKENS).raw, "output with other parameters")


def test_reset_restores_the_start_of_every_layer() -> None:
    model = make()
    state = model(TOKENS).state
    reset = torch.zeros(2, 6, dtype=torch.bool)
    reset[1, 0] = True
    found = model(TOKENS, state, reset).raw
    assert_close(found[:1], model(TOKENS, state).raw[:1], "the row without a reset")
    assert_close(found[1:], model(TOKENS).raw[1:], "the row with one")


def test_initial_state() -> None:
    state = make().initial_state(3)
    assert isinstance(state, ModelState)
    assert [type(part).__name__ for part in state.cells] == ["LSTMState", "LSTMState"]
    assert all(part.shape[0] == 3 and part.dtype == torch.float64 for part in tree.leaves(state))


@pytest.mark.parametrize("case", first_of_each(CAUSAL, attrgetter("name")), ids=str)
def test_fit_width(case: Case) -> None:
    config = ModelConfig.parse({"layers": 2, "cell": CELLS[case.name].EXAMPLES[case.index]})
    cell = config.layer_cells()[0]
    step = CELLS[cell.name].width_multiple(cell)
    budget = max(20_000, count_params(config.model_copy(update={"width": 2 * step}), 50))
    fitted = fit_width(config, 50, budget)
    assert count_params(fitted, 50) <= budget
    assert count_params(fitted.model_copy(update={"width": fitted.width + step}), 50) > budget
    assert fitted.model_copy(update={"width": config.width}) == config


def test_a_number_of_parameters_in_place_of_a_width() -> None:
    config = ModelConfig.parse({"layers": 2, "cell": {"name": "gla"}, "params": 30_000})
    model = LanguageModel(config, 50)
    assert model.config == fit_width(config, 50, 30_000)
    assert model.config.params is None
    assert model.num_params() == count_params(model.config, 50) <= 30_000
    assert model.config.width != config.width
    with pytest.raises(UsageError, match="no width fits 10 parameters"):
        LanguageModel(ModelConfig(params=10), 50)


def test_fit_width_at_the_edges() -> None:
    config = ModelConfig()
    exact = count_params(config.model_copy(update={"width": 7}), 50)
    assert fit_width(config, 50, exact).width == 7
    assert fit_width(config, 50, exact - 1).width == 6
    with pytest.raises(UsageError, match="width 1 already has"):
        fit_width(config, 50, 10)


def test_fit_width_scales_fixed_widths_in_proportion() -> None:
    values = {"layers": 3, "widths": [40, 80, 20], "embedding": {"size": 20, "tied": True}, "cell": "gru"}
    config = ModelConfig.parse(values)
    fitted = fit_width(config, 50, 10_000)
    assert fitted.widths is not None
    scale = fitted.widths[0] / 40
    assert fitted.widths == tuple(round(size * scale) for size in (40, 80, 20))
    assert fitted.embedding.size == fitted.widths[2]
    assert count_params(fitted, 50) <= 10_000
    wider = ModelConfig.parse({**values, "widths": [fitted.widths[0] + 1, 2 * (fitted.widths[0] + 1), 10]})
    assert count_params(wider, 50) > 10_000
    assert fit_width(config, 50, count_params(config, 50)) == config


@pytest.mark.parametrize(
    ("init", "variance"), [("uniform", 0.2**2 / 3), ("normal", 0.2**2), ("truncated_normal", 0.774 / 40)]
)
def test_embedding_starts(init: str, variance: float) -> None:
    torch.manual_seed(0)
    embedding = Embedding(500, 40, EmbeddingConfig.parse({"init": init, "scale": 0.2}))
    assert float(embedding.weight.detach().square().mean()) == pytest.approx(variance, rel=0.05)


def test_embedding_projection() -> None:
    embedding = Embedding(VOCAB, 6, EmbeddingConfig(size=4, project=3)).double()
    assert embedding.out_width == 3
    assert_close(embedding(TOKENS), embedding.weight[TOKENS] @ embedding.projection.T, "embedding")


@pytest.mark.parametrize("options", [{}, {"project": 3}, {"one_hot": True, "size": None}], ids=str)
def test_what_is_looked_up_is_multiplied(options: dict[str, Any]) -> None:
    config = EmbeddingConfig.parse({"size": 4, **options, "multiplier": 3.0})
    torch.manual_seed(0)
    embedding = Embedding(VOCAB, 6, config).double()
    torch.manual_seed(0)
    plain = Embedding(VOCAB, 6, config.model_copy(update={"multiplier": 1.0})).double()
    assert_close(embedding(TOKENS), 3 * plain(TOKENS), "embedding")
    assert_close(embedding.table()[TOKENS], embedding(TOKENS), "as a table")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'mlstm'"):
        ModelConfig.parse({"cell": "mlsm"})
    with pytest.raises(UsageError, match="softmax"):
        ModelConfig.parse({"head": "sotfmax"})


def test_one_hot_input_has_no_matrix() -> None:
    torch.manual_seed(1)
    model = LanguageModel(ModelConfig.parse({"width": 6, "embedding": {"one_hot": True}}), 9).double()
    assert not any(name.startswith("embedding") for name, _ in model.named_parameters())
    tokens = torch.tensor([[3, 0, 8]])
    assert torch.equal(model.embedding(tokens), torch.eye(9, dtype=torch.float64)[tokens])
    model.loss(tokens, tokens)[0].backward()
    grad = model.stack.cells()[0].weight_ih.grad
    assert isinstance(grad, torch.Tensor)
    assert set(grad.abs().sum(0).nonzero().flatten().tolist()) == {0, 3, 8}
    assert model.flops_per_token() == 2 * sum(p.numel() for p in model.parameters() if p.dim() == 2)
    for other in ({"size": 4}, {"tied": True}, {"project": 3}):
        with pytest.raises(UsageError, match="one_hot has no size"):
            ModelConfig.parse({"embedding": {"one_hot": True, **other}})
