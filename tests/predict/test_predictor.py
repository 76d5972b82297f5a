"""Windows equal steps, and both equal the plain definition."""

import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from unrolled.core import tree
from unrolled.predict import NeuralPredictor, Predictor

ALL = [("lstm", False), ("mlstm", False), ("gru", True)]
V = 20


def plain_nll(predictor: NeuralPredictor, ids: Tensor, reset: Tensor) -> Tensor:
    """Each row's texts one by one through the model's own loss, from the initial state."""
    result = torch.zeros(ids.shape, dtype=torch.float64)
    for row in range(len(ids)):
        borders = [0, *(t for t in range(1, ids.shape[1]) if reset[row, t]), ids.shape[1]]
        for low, high in itertools.pairwise(borders):
            text = ids[row : row + 1, low:high]
            inputs = torch.cat([torch.full((1, 1), predictor.start_id), text[:, :-1]], 1)
            result[row, low:high] = predictor.model.loss(inputs, text)[1][0].detach()
    return result


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def trees_close(a: object, b: object) -> None:
    for one, other in zip(tree.leaves(a), tree.leaves(b), strict=True):
        close(one, other)


@st.composite
def windows(draw: st.DrawFn) -> tuple[Tensor, Tensor, list[int]]:
    batch, time = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    size = batch * time
    ids = draw(st.lists(st.integers(0, V - 1), min_size=size, max_size=size))
    reset = draw(st.lists(st.sampled_from([False, False, True]), min_size=size, max_size=size))
    cuts = sorted(draw(st.sets(st.integers(1, time - 1)))) if time > 1 else []
    return torch.tensor(ids).view(batch, time), torch.tensor(reset).view(batch, time), cuts


@pytest.mark.parametrize(("cell", "counting"), ALL)
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=windows())
def test_windows_equal_steps_equal_the_definition(predictor, cell, counting, case):
    model = predictor(cell, counting=counting)
    ids, reset, cuts = case
    expected = plain_nll(model, ids, reset)

    stepwise = Predictor.window(model, model.begin(len(ids)), ids, reset)
    close(stepwise.nll, expected)

    state, parts, hidden = model.begin(len(ids)), [], []
    for low, high in zip([0, *cuts], [*cuts, ids.shape[1]], strict=True):
        scores = model.window(state, ids[:, low:high], reset[:, low:high])
        state = scores.state
        parts.append(scores.nll)
        hidden.append(scores.hidden)
    close(torch.cat(parts, 1), expected)
    assert stepwise.hidden is not None
    close(torch.cat(hidden, 1), stepwise.hidden)
    trees_close(state, stepwise.state)


@pytest.mark.parametrize(("cell", "counting"), ALL)
def test_consuming_equals_observing(predictor, cell, counting):
    model = predictor(cell, counting=counting)
    ids = torch.arange(14).view(2, 7)
    begun = model.begin(2, torch.tensor([3, 4]))
    trees_close(model.consume(begun, ids), Predictor.consume(model, begun, ids))
    assert model.consume(begun, ids[:, :0]) is begun
    assert not torch.equal(begun.hidden[0], model.begin(1).hidden[0])


@pytest.mark.parametrize(("cell", "counting"), ALL)
def test_rows_are_independent_and_states_are_values(predictor, cell, counting):
    model = predictor(cell, counting=counting)
    ids, more = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([7, 8])
    state = model.consume(model.begin(2), ids)
    before = [leaf.clone() for leaf in tree.leaves(state)]
    both = model.predict(model.observe(state, more)).log_prob
    model.window(state, ids, torch.ones_like(ids, dtype=torch.bool))
    assert all(torch.equal(a, b) for a, b in zip(before, tree.leaves(state), strict=True))
    swapped = model.observe(tree.select_rows(state, torch.tensor([1, 0])), more.flip(0))
    close(model.predict(swapped).log_prob, both.flip(0))
    alone = model.consume(model.begin(1), torch.tensor([[4, 5, 6, 8]]))
    close(model.predict(alone).log_prob[0], both[1])
    assert torch.allclose(both.exp().sum(1), torch.ones(2, dtype=torch.float64))


def test_no_gradients_and_evaluation_mode(predictor):
    model = predictor()
    model.model.train()
    again = NeuralPredictor(model.model, 0)
    assert not model.model.training
    scores = again.window(again.begin(1), torch.tensor([[1, 2]]))
    assert not scores.nll.requires_grad
    assert not any(leaf.requires_grad for leaf in tree.leaves(scores.state))
    assert not again.predict(scores.state).log_prob.requires_grad


def test_precision_is_reported(predictor):
    assert predictor(dtype=torch.float32).precision == "float32"
    assert predictor().precision == "float64"
