"""Optimal transport: the plan against a linear program, the value against whole distributions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from train.objective_material import B, T, make_model, make_task, make_window, objectives_of, term_of
from train.runs import experiment
from unrolled.core.errors import UsageError
from unrolled.train import train
from unrolled.train.objectives.sequences import sequences_of
from unrolled.train.objectives.transport import transport_plan


def least_cost(cost: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> float:
    """By linear programming."""
    n, m = cost.shape
    sums = np.zeros((n + m, n * m))
    for i in range(n):
        sums[i, i * m : (i + 1) * m] = 1
    for j in range(m):
        sums[n + j, j::m] = 1
    found = linprog(cost.ravel(), A_eq=sums, b_eq=np.concatenate([rows, columns]))
    assert found.status == 0
    return float(found.fun)


def costs(seed: int, n: int = 20, width: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    one, other = (torch.randn(n, width, generator=generator, dtype=torch.float64) for _ in range(2))
    return 1 - torch.nn.functional.normalize(one, dim=1) @ torch.nn.functional.normalize(other, dim=1).t()


@pytest.mark.parametrize("seed", range(3))
def test_the_cost_is_the_least_one(seed: int) -> None:
    cost, even = costs(seed), torch.full((20,), 1 / 20, dtype=torch.float64)
    plan = transport_plan(cost.unsqueeze(0), even.unsqueeze(0), even.unsqueeze(0), 0.1, 200)[0]
    excess = float((plan * cost).sum()) - least_cost(cost.numpy(), even.numpy(), even.numpy())
    assert -1e-6 <= excess < 1e-3
    torch.testing.assert_close(plan.sum(0), even, rtol=0, atol=1e-6)
    torch.testing.assert_close(plan.sum(1), even, rtol=0, atol=1e-6)


def test_uneven_weights_and_places_that_are_not_there() -> None:
    cost = costs(5, 6)
    rows = torch.tensor([0.1, 0.4, 0.2, 0.3, 0.0, 0.0]).double()
    columns = torch.tensor([0.25, 0.25, 0.0, 0.25, 0.25, 0.0]).double()
    plan = transport_plan(cost.unsqueeze(0), rows.unsqueeze(0), columns.unsqueeze(0), 0.1, 500)[0]
    excess = float((plan * cost).sum()) - least_cost(cost.numpy(), rows.numpy(), columns.numpy())
    assert -1e-6 <= excess < 1e-3
    assert float(plan[4:].sum()) == float(plan[:, 2].sum()) == 0
    none = torch.zeros(1, 6).double()
    assert float(transport_plan(cost.unsqueeze(0), none, none, 0.1, 5).abs().max()) == 0


def test_a_sequence_costs_nothing_to_be_moved_onto_itself_in_any_order() -> None:
    generator = torch.Generator().manual_seed(1)
    own = torch.nn.functional.normalize(torch.randn(20, 16, generator=generator, dtype=torch.float64), dim=1)
    even = torch.full((1, 20), 1 / 20, dtype=torch.float64)
    for order in (torch.arange(20), torch.randperm(20, generator=generator)):
        cost = (1 - own @ own[order].t()).unsqueeze(0)
        assert abs(float((transport_plan(cost, even, even, 0.1, 200) * cost).sum())) < 1e-9


def dense(lm: Any, batch: Any, temperature: float) -> Tensor:
    """Each sequence by itself, from whole distributions; the plan is held fixed."""
    vectors = lm.embedding.table().detach()
    log_prob = lm.head.log_prob(lm(batch.inputs, None, batch.reset).dropped)[0]
    predicted = torch.softmax(log_prob / temperature, 2) @ vectors
    total = log_prob.new_zeros(())
    for row in range(B):
        begins = [0, *([] if batch.reset is None else [t for t in range(1, T) if batch.reset[row, t]]), T]
        for k in range(len(begins) - 1):
            part = slice(begins[k], begins[k + 1])
            one, other = predicted[row, part], vectors[batch.targets[row, part]]
            cost = 1 - one @ other.t() / one.norm(dim=1).unsqueeze(1) / other.norm(dim=1)
            weight = torch.ones(len(one)).double() if batch.weight is None else batch.weight[row, part]
            share = (weight / weight.sum()).unsqueeze(0)
            plan = transport_plan(cost.detach().unsqueeze(0), share, share, 0.1, 200)[0]
            total = total + weight.sum() * (plan * cost).sum()
    return total / (B * T if batch.weight is None else batch.weight.sum())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("values", [{}, {"head": {"name": "softmax", "project": 4, "block": 30}}])
def test_value_and_gradient(weighted: bool, resets: bool, values: dict[str, Any]) -> None:
    """The gradient with respect to the costs is the plan."""
    lm, batch = make_model(**values), make_window(weighted, resets)
    found = term_of(lm, objectives_of(lm, "transport", temperature=0.7, weight=1.0), batch)
    wanted = dense(lm, batch, 0.7)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    parameters = list(lm.parameters())
    both = [torch.autograd.grad(one, parameters, allow_unused=True, materialize_grads=True) for one in (found, wanted)]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)


def test_the_gradient_is_that_of_the_least_cost() -> None:
    """Envelope: differences of the linear program's cost are the plan, where it is the only best one."""
    cost, even = costs(7, 6), np.full(6, 1 / 6)
    share = torch.from_numpy(even).unsqueeze(0)
    plan = transport_plan(cost.unsqueeze(0), share, share, 0.1, 2000)[0].numpy()
    for i in range(6):
        for j in range(6):
            moved = cost.numpy().copy()
            moved[i, j] += 1e-6
            below = cost.numpy().copy()
            below[i, j] -= 1e-6
            slope = (least_cost(moved, even, even) - least_cost(below, even, even)) / 2e-6
            assert plan[i, j] == pytest.approx(slope, abs=1e-4)


def test_sequences_of_a_window() -> None:
    reset = torch.tensor([[False, False, True, False], [True, True, False, False]])
    found = sequences_of(reset, 2, 4)
    held = [row[there].tolist() for row, there in zip(found.places, found.there, strict=True)]
    assert held == [[0, 1], [2, 3], [4], [5, 6, 7]]
    assert sequences_of(None, 2, 4).places.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_every_option_does_something() -> None:
    lm, batch = make_model(), make_window()
    options = ({}, {"proximity": 0.5, "iterations": 20}, {"iterations": 1}, {"temperature": 0.3})
    values = {float(term_of(lm, objectives_of(lm, "transport", **one), batch).detach()) for one in options}
    assert len(values) == 4
    assert make_task().config.stream.carry is False


def test_refusals(text: Path, tmp_path: Path) -> None:
    def said(**parts: Any) -> str:
        with pytest.raises(UsageError) as caught:
            train(
                experiment(text, train={"steps": 1, "extra": [{"name": "transport"}]}, **parts), tmp_path / "run", "cpu"
            )
        return str(caught.value)

    assert "transport compares sequences, and this stream carries its state" in said()
    assert "set corpus.reset=line with stream.order=shuffled, or stream.carry=false" in said()
    assert "needs the head softmax" in said(model={"head": {"name": "pointer"}}, stream={"carry": False})
    sentences = {"corpus": {"path": str(text), "reset": "line"}, "stream": {"order": "shuffled"}}
    extra = {"steps": 2, "extra": [{"name": "transport"}]}
    assert train(experiment(text, train=extra, **sentences), tmp_path / "run", "cpu")
