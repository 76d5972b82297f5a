"""Weight drop and zoneout (Merity et al. 2018; Krueger et al. 2017)."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.model import LanguageModel, ModelConfig

VOCAB, BATCH, TIME = 9, 3, 6
TOKENS = torch.arange(BATCH * TIME).view(BATCH, TIME) * 5 % VOCAB
CELLS: dict[str, dict[str, Any]] = {
    "rnn": {"name": "rnn"},
    "lstm": {"name": "lstm"},
    "gru": {"name": "gru"},
    "mlstm": {"name": "mlstm"},
    "mogrifier": {"name": "mogrifier", "cell": {"name": "gru"}},
}
every = pytest.mark.parametrize("key", CELLS)


def make(cell: dict[str, Any], backend: str = "auto", **dropout: Any) -> LanguageModel:
    torch.manual_seed(0)
    values = {"width": 8, "layers": 2, "cell": cell, "dropout": dropout, "compute": {"backend": backend}}
    return LanguageModel(ModelConfig.parse(values), VOCAB).double()


def run(model: LanguageModel, window: int | None = 0) -> Tensor:
    masks = None if window is None else model.draw_masks(BATCH, TIME, RandomStreams(1), window)
    return model(TOKENS, masks=masks).raw


@every
def test_masked_weights_are_what_the_cell_computes_with(key: str) -> None:
    """On every backend: as a model whose parameters are the products, outputs and gradients."""
    model = make(CELLS[key], weight=0.5)
    masks = model.draw_masks(BATCH, TIME, RandomStreams(1), 0)
    assert masks is not None
    named = {
        f"stack.layers.{i}.{name}": mask for i, part in enumerate(masks.weight) for name, mask in (part or {}).items()
    }
    assert named
    assert all(set(mask.unique().tolist()) == {0.0, 2.0} for mask in named.values())
    replaced = {name: (p.detach() * named.get(name, 1)).requires_grad_() for name, p in model.named_parameters()}
    wanted = functional_call(model, replaced, (TOKENS,)).raw
    grads = torch.autograd.grad(wanted.square().sum(), list(replaced.values()), allow_unused=True)
    cells = model.stack.cells()
    backends = set(cells[0].backends()) | {"reference", "generic"}
    assert len(backends) >= 2
    for backend in backends:
        other = make(CELLS[key], backend, weight=0.5)
        raw = run(other)
        torch.testing.assert_close(raw, wanted, rtol=0, atol=1e-12)
        raw.square().sum().backward()
        for (name, p), grad in zip(other.named_parameters(), grads, strict=True):
            if grad is not None:
                assert p.grad is not None, "the gradient reaches the raw parameter"
                torch.testing.assert_close(p.grad, grad * named.get(name, 1), rtol=0, atol=1e-11)


@pytest.mark.parametrize("key", ["rnn", "lstm", "gru", "mlstm"])
def test_one_mask_a_window_which_the_first_step_cannot_show(key: str) -> None:
    """Zero initial state: two windows' masks agree at t = 0 in the first layer and differ later."""
    model = make(CELLS[key], weight=0.5)
    first, again, other = (run_first(model, window) for window in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first[:, 0], other[:, 0])
    assert all((first[:, t] - other[:, t]).abs().max() > 1e-6 for t in range(1, TIME))


def run_first(model: LanguageModel, window: int) -> Tensor:
    masks = model.draw_masks(BATCH, TIME, RandomStreams(1), window)
    assert masks is not None
    layer, x = model.stack.cells()[0], model.embedding(TOKENS)
    weights = {name: layer.get_parameter(name) * mask for name, mask in masks.weight[0].items()}  # type: ignore[union-attr]
    return functional_call(layer, weights, (x,))[0]


@every
def test_evaluation_uses_the_weights_as_they_are(key: str) -> None:
    dropped, plain = make(CELLS[key], weight=0.5), make(CELLS[key])
    before = {name: p.clone() for name, p in dropped.named_parameters()}
    run(dropped)
    assert torch.equal(run(dropped, None), run(plain, None))
    assert all(torch.equal(before[name], p) for name, p in dropped.named_parameters())
    assert all(type(p) is nn.Parameter for p in dropped.parameters())


def test_evaluation_equals_torch() -> None:
    model = make({"name": "lstm", "bias": "two"}, weight=0.5)
    x = model.embedding(TOKENS)
    for layer in model.stack.cells():
        module = nn.LSTM(8, 8, batch_first=True).double()
        with torch.no_grad():
            for ours, theirs in zip(layer.parameters(), module.parameters(), strict=True):
                theirs.copy_(ours)
        x = module(x)[0]
    torch.testing.assert_close(run(model, None), x, rtol=0, atol=1e-12)


def test_embedding_dropout_leaves_the_tied_output_matrix() -> None:
    torch.manual_seed(0)
    values = {"width": 8, "embedding": {"tied": True}, "dropout": {"embedding": 0.5}}
    model = LanguageModel(ModelConfig.parse(values), VOCAB).double()
    masks = model.draw_masks(BATCH, TIME, RandomStreams(1), 0)
    assert masks is not None
    out = model(TOKENS, masks=masks)
    by_hand = torch.log_softmax(out.dropped @ model.embedding.weight.t() + model.head.bias, -1)
    nll = -by_hand.gather(2, TOKENS.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(model.score(out, TOKENS, masks=masks)[1], nll)
    assert masks.embedding is not None
    x = model.embedding(TOKENS, masks.embedding)
    torch.testing.assert_close(x, (model.embedding.weight * masks.embedding)[TOKENS])
    assert (x == 0).all(-1).any()


RATES: dict[str, float] = {"h": 0.3, "c": 0.6}


@pytest.mark.parametrize("key", ["lstm", "mlstm"])
def test_zoneout_keeps_old_values_in_training_and_mixes_in_evaluation(key: str) -> None:
    model = make(CELLS[key], zoneout=RATES)
    masks = model.draw_masks(BATCH, 500, RandomStreams(1), 0)
    assert masks is not None
    zoneout = masks.zoneout[1]
    assert zoneout is not None
    for name, rate in RATES.items():
        assert set(zoneout[name].unique().tolist()) == {0.0, 1.0}
        assert float(zoneout[name].mean()) == pytest.approx(rate, abs=0.02)
        assert zoneout[name].shape == (BATCH, 500, 8)
    layer = model.stack.cells()[0]
    layer.compute = layer.compute.model_copy(update={"backend": "reference"})
    x = model.embedding(TOKENS)
    for parts in (masks.zoneout[0], {name: torch.tensor(rate) for name, rate in RATES.items()}):
        assert parts is not None
        state = layer.initial_state(BATCH, dtype=torch.float64)
        for t in range(TIME):
            _, new = layer(x[:, t : t + 1], state)
            kept = {}
            for name, old in state._asdict().items():
                z = parts[name] if parts[name].dim() == 0 else parts[name][:, t]
                kept[name] = z * old + (1 - z) * getattr(new, name)
            state = type(state)(**kept)
        own = masks._replace(zoneout=tuple({n: m[:, :TIME] for n, m in (p or {}).items()} for p in masks.zoneout))
        drawn = own if parts is masks.zoneout[0] else None
        for name, value in model(TOKENS, masks=drawn).state.cells[0]._asdict().items():
            torch.testing.assert_close(value, getattr(state, name))


def test_rates_that_a_cell_cannot_take_are_refused() -> None:
    with pytest.raises(UsageError, match="no 'c' for zoneout, only h"):
        make({"name": "gru"}, zoneout={"c": 0.1})
    with pytest.raises(UsageError, match=r"'mlstm' has no recurrent matrices for dropout\.weight"):
        make({"name": "mlstm", "weight_norm": True}, weight=0.1)
