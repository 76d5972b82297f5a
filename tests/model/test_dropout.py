"""Dropout sites."""

from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.core.tree import flatten
from unrolled.model import LanguageModel, ModelConfig
from unrolled.model.dropout import cut_masks, draw_mask

VOCAB, BATCH, TIME = 9, 3, 4
SITES = ("embedding", "input", "between", "state", "output", "projected")
TOKENS = torch.arange(BATCH * TIME).view(BATCH, TIME) % VOCAB


def make(**dropout: Any) -> LanguageModel:
    torch.manual_seed(0)
    config = {"width": 8, "layers": 3, "head": {"name": "softmax", "project": 5}, "dropout": dropout}
    return LanguageModel(ModelConfig.parse(config), VOCAB).double()


def masks(window: int = 0, seed: int = 1, shard: int = 0, **dropout: Any) -> dict[str, Tensor]:
    drawn = make(**dropout).draw_masks(BATCH, TIME, RandomStreams(seed, shard), window)
    return flatten(drawn)


def nats(model: LanguageModel, drawn: Any) -> Tensor:
    return model.loss(TOKENS, TOKENS.roll(1, 1), masks=drawn)[1]


@pytest.mark.parametrize("site", SITES)
def test_each_rate_changes_the_result(site: str) -> None:
    model = make(**{site: 0.5})
    drawn = model.draw_masks(BATCH, TIME, RandomStreams(1), 0)
    assert (nats(model, drawn) - nats(model, None)).abs().max() > 1e-6
    total, _, _ = model.loss(TOKENS, TOKENS, masks=drawn)
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("mlp", [0.0, 2.0])
def test_what_residual_blocks_add_is_dropped(mlp: float) -> None:
    """Every cell and every MLP: with all of it dropped, nothing but the embedding is left."""
    torch.manual_seed(0)
    stack = {"kind": "residual", "mlp": mlp}
    values: dict[str, Any] = {"width": 8, "layers": 3, "stack": stack, "dropout": {"branch": 0.5, "mask": "step"}}
    model = LanguageModel(ModelConfig.parse(values), VOCAB).double()
    drawn = model.draw_masks(BATCH, TIME, RandomStreams(1), 0)
    assert drawn is not None
    assert [mask.shape for mask in drawn.branch if mask is not None] == [(BATCH, TIME, 8)] * (6 if mlp else 3)
    assert len({mask.sum().item() for mask in drawn.branch if mask is not None}) > 1, "each is drawn by itself"
    assert (nats(model, drawn) - nats(model, None)).abs().max() > 1e-6
    assert torch.equal(model(TOKENS, masks=cut_masks(drawn, 0, TIME)).raw, model(TOKENS, masks=drawn).raw)
    gone = drawn._replace(branch=tuple(mask * 0 for mask in drawn.branch if mask is not None))
    norm: Any = model.stack.final_norm
    torch.testing.assert_close(model(TOKENS, masks=gone).raw, norm(model.embedding(TOKENS)))


def test_dropped_branches_need_a_residual_stack() -> None:
    with pytest.raises(UsageError, match="is for stacks of kind residual"):
        make(branch=0.1)


def test_all_zero_rates_draw_nothing() -> None:
    assert make().draw_masks(BATCH, TIME, RandomStreams(1), 0) is None


def test_evaluation_has_no_dropout() -> None:
    model = make(**dict.fromkeys(SITES, 0.5))
    plain = make()
    assert torch.equal(nats(model, None), nats(plain, None))
    assert torch.equal(model.eval()(TOKENS).dropped, model.train()(TOKENS).raw)


ALL: dict[str, Any] = dict.fromkeys(SITES, 0.4)


def test_masks_depend_on_seed_shard_and_window_alone() -> None:
    first = masks(**ALL)
    assert set(first) == {
        "embedding",
        "input",
        "between.0",
        "between.1",
        "state.0",
        "state.1",
        "state.2",
        "output",
        "head.projected",
    }
    again = masks(**ALL)
    assert all(torch.equal(again[site], mask) for site, mask in first.items())
    for other in (masks(window=1, **ALL), masks(seed=2, **ALL), masks(shard=1, **ALL)):
        assert all(not torch.equal(other[site], mask) for site, mask in first.items())


@pytest.mark.parametrize("site", SITES)
def test_a_site_disturbs_no_other(site: str) -> None:
    whole, rest = masks(**ALL), masks(**{name: rate for name, rate in ALL.items() if name != site})
    assert len(rest) < len(whole)
    assert all(torch.equal(whole[name], mask) for name, mask in rest.items())


def test_layers_and_sites_of_one_shape_differ() -> None:
    found = masks(**ALL)
    same = [found[name] for name in ("input", "between.0", "between.1", "state.0", "state.1", "state.2", "output")]
    assert len({tuple(mask.flatten().tolist()) for mask in same}) == len(same)


@pytest.mark.parametrize("mask", ["window", "step"])
@pytest.mark.parametrize("state_mask", ["window", "step"])
def test_masks_for_the_window_or_for_each_step(mask: str, state_mask: str) -> None:
    time = {"window": 1, "step": TIME}
    for name, value in masks(**ALL, mask=mask, state_mask=state_mask).items():
        if name == "embedding":
            assert value.shape == (VOCAB, 1)
        else:
            assert value.shape[:2] == (BATCH, time[state_mask if name.startswith("state") else mask]), name


def test_rate_and_scale() -> None:
    found = draw_mask(0.3, (100, 100), RandomStreams(1), "site", 0, torch.device("cpu"), torch.float64)
    assert found is not None
    assert set(found.flatten().tolist()) == {0.0, 1 / 0.7}
    assert float((found == 0).double().mean()) == pytest.approx(0.3, abs=0.02)
    assert draw_mask(0.0, (2,), RandomStreams(1), "site", 0, torch.device("cpu"), torch.float64) is None


def test_embedding_dropout_drops_whole_words() -> None:
    model = make(embedding=0.5)
    drawn = model.draw_masks(BATCH, TIME, RandomStreams(1), 0)
    assert drawn is not None
    assert drawn.embedding is not None
    x = model.embedding(TOKENS, drawn.embedding)
    for token in range(VOCAB):
        rows = x[token == TOKENS]
        assert torch.equal(rows, (2 * model.embedding.weight[token]).expand_as(rows)) or not rows.any()
    assert 0 < int((drawn.embedding == 0).sum()) < VOCAB


@pytest.mark.parametrize("place", ["in", "out"])
def test_place_of_the_state_mask(place: str) -> None:
    model = make(state=0.5, state_place=place)
    drawn = model.draw_masks(BATCH, TIME, RandomStreams(1), 0)
    assert drawn is not None
    mask = drawn.state[2]
    assert mask is not None
    raw = model(TOKENS, masks=drawn).raw
    hidden = raw[(mask == 0).expand_as(raw)]
    # on entry the mask hides h from the next step only; as output and carry nothing of it is left
    assert bool((hidden == 0).all()) == (place == "out")


def test_raw_and_dropped_outputs() -> None:
    model = make(output=0.5)
    drawn = model.draw_masks(BATCH, TIME, RandomStreams(1), 0)
    out = model(TOKENS, masks=drawn)
    assert drawn is not None
    assert drawn.output is not None
    assert torch.equal(out.dropped, out.raw * drawn.output)
    assert torch.equal(out.raw, model(TOKENS).raw)


def test_the_state_carried_on_is_not_cut_by_other_sites() -> None:
    """Input dropout reaches the state; output dropout does not."""
    plain = flatten(make()(TOKENS).state)
    for site, changes in (("input", True), ("output", False), ("projected", False)):
        model = make(**{site: 0.5})
        state = flatten(model(TOKENS, masks=model.draw_masks(BATCH, TIME, RandomStreams(1), 0)).state)
        assert any(not torch.equal(state[name], part) for name, part in plain.items()) == changes, site
