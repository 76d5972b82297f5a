"""Adaptive computation time: constant halting in closed form, one step, the cost and its gradient, parity of bits."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from conformance.tolerance import assert_close
from unrolled.cells.gated.act import ACT, ACTConfig
from unrolled.core.errors import UsageError
from unrolled.kernels.dispatch import Compute
from unrolled.model import LanguageModel, ModelConfig
from unrolled.task import Seen
from unrolled.train.objectives import ObjectiveConfig, objective

B, T, IN, N = 2, 7, 5, 6


def make(**options: Any) -> tuple[ACT, Tensor]:
    torch.manual_seed(0)
    config = ACTConfig.model_validate(options)
    cell = ACT(IN, N, config).double()
    return cell, torch.randn(B, T, IN, dtype=torch.float64)


def run(cell: ACT, x: Tensor) -> tuple[Tensor, Any, Tensor]:
    handed: dict[str, Tensor] = {}
    y, state = cell(x, handed=handed)
    return y, state, handed["cost"]


@pytest.mark.parametrize("name", ["lstm", "gru"])
@pytest.mark.parametrize(("bias", "cap"), [(-1.0, 9), (0.0, 9), (1.0, 9), (-4.0, 3), (6.0, 9)])
def test_constant_halting(name: str, bias: float, cap: int) -> None:
    """With weights p the same for every token: N from p alone, and means over N steps of the wrapped cell."""
    cell, x = make(cell={"name": name}, cap=cap, halt_bias=bias)
    with torch.no_grad():
        cell.loop.halt.zero_()
    p = float(torch.sigmoid(torch.tensor(bias, dtype=torch.float64)))
    count = next((n for n in range(1, cap + 1) if n * p >= 1 - 0.01), cap)
    shares = [p] * (count - 1) + [1 - (count - 1) * p]
    assert sum(shares) == pytest.approx(1)
    y, final, cost = run(cell, x)
    torch.testing.assert_close(cost, torch.full_like(cost, count + shares[-1]))
    inner = cell.loop.cell
    inner.compute = Compute(backend="reference")
    state: Any = inner.initial_state(B, dtype=torch.float64)
    for t in range(T):
        total, parts = torch.zeros(B, N, dtype=torch.float64), None
        for n, share in enumerate(shares):
            flag = torch.full((B, 1), float(n == 0), dtype=torch.float64)
            out, state = inner(torch.cat([x[:, t], flag], -1).unsqueeze(1), state)
            total = total + share * out[:, 0]
            scaled = [share * part for part in state]
            parts = scaled if parts is None else [a + b for a, b in zip(parts, scaled, strict=True)]
        assert parts is not None
        state = type(state)(*parts)
        assert_close(y[:, t], total, f"output at token {t}")
    for part, other in zip(final, state, strict=True):
        assert_close(part, other, "state")


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_one_step_is_the_wrapped_cell(name: str) -> None:
    cell, x = make(cell={"name": name}, cap=1)
    y, final, cost = run(cell, x)
    expected, last = cell.loop.cell(torch.cat([x, torch.ones_like(x[..., :1])], -1))
    assert_close(y, expected, "output")
    for part, other in zip(final, last, strict=True):
        assert_close(part, other, "state")
    assert torch.equal(cost, torch.full_like(cost, 2.0)), "one step, and all of its weight is left over"


def test_rows_halt_for_themselves() -> None:
    """In a batch of tokens that want more and fewer steps each row is as it is alone."""
    cell, x = make(cap=9, halt_bias=-1.0)
    with torch.no_grad():
        cell.loop.halt.mul_(8)
    y, _, cost = run(cell, 3 * x)
    assert len(cost.ceil().unique()) > 1
    for row in range(B):
        alone, _, own = run(cell, 3 * x[row : row + 1])
        assert_close(y[row : row + 1], alone, "output")
        assert_close(cost[row : row + 1], own, "cost")


def test_the_gradient_of_the_cost_is_that_of_what_is_left_over() -> None:
    """Finite differences; the number of steps has no gradient."""
    cell, x = make(cap=9, halt_bias=-1.0)
    _, _, cost = run(cell, x)
    parameters = [cell.loop.halt_bias, cell.loop.halt, *cell.loop.cell.parameters()]
    found = torch.autograd.grad(cost.sum(), parameters)
    assert all(bool(grad.any()) for grad in found)
    for parameter, grad in zip(parameters, found, strict=True):
        flat, at = parameter.detach().view(-1), parameter.numel() // 2
        values = []
        for change in (1e-6, -2e-6, 1e-6):
            with torch.no_grad():
                flat[at] += change
                values.append(float(run(cell, x)[2].sum()))
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(float(grad.view(-1)[at]), abs=1e-7)


def seen_of(model: Any, tokens: Tensor) -> Seen:
    out = model(tokens)
    total, nll, _ = model.score(out, tokens)
    return Seen(model, None, None, None, total, nll, tokens, None, None, out, None)


def test_the_cost_is_part_of_the_objective() -> None:
    torch.manual_seed(0)
    tokens = torch.arange(12).view(2, 6) % 5
    config = {"width": 8, "layers": 2, "cell": {"name": "act", "cap": 4, "halt_bias": -1.0}}
    model = LanguageModel(ModelConfig.parse(config), 5)
    seen = seen_of(model, tokens)
    assert seen.out.handed["cost"].shape == (2, 6, 1)
    assert float(seen.out.handed["cost"].detach().min()) > 2, "of both layers"
    plain = objective(ObjectiveConfig(), seen)
    whole = objective(ObjectiveConfig(cost=0.3), seen)
    torch.testing.assert_close(whole - plain, 0.3 * seen.out.handed["cost"].mean())
    other = LanguageModel(ModelConfig.parse({"width": 8}), 5)
    assert "cost" not in other(tokens).handed
    with pytest.raises(UsageError, match="no cell of this model has a cost"):
        objective(ObjectiveConfig(cost=0.3), seen_of(other, tokens))


def test_other_cells_cannot_be_repeated() -> None:
    with pytest.raises(UsageError, match="repeats a StepCell"):
        ACTConfig.model_validate({"cell": {"name": "qrnn"}})


BITS = 16


def vectors(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Vectors whose first so many numbers are -1 or 1 and the others 0; and whether the ones are odd in number."""
    count = torch.randint(1, BITS + 1, (rows, 1), generator=generator)
    signs = 2.0 * torch.randint(0, 2, (rows, BITS), generator=generator) - 1
    x = signs * (torch.arange(BITS) < count)
    return x, (x > 0).sum(1, keepdim=True).remainder(2).float()


def parity(cap: int, updates: int) -> tuple[float, float]:
    """Share of vectors whose parity is right, and the mean cost, after training on vectors of one token each."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    cell, read = ACT(BITS, 48, ACTConfig.model_validate({"cap": cap, "cell": {"name": "gru"}})), nn.Linear(48, 1)
    parameters = [*cell.parameters(), *read.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.003)
    for _ in range(updates):
        x, odd = vectors(128, generator)
        y, _, cost = run(cell, x.unsqueeze(1))
        loss = binary_cross_entropy_with_logits(read(y[:, 0]), odd) + 0.003 * cost.mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    with torch.no_grad():
        x, odd = vectors(2000, generator)
        y, _, cost = run(cell, x.unsqueeze(1))
        return float(((read(y[:, 0]) > 0) == (odd > 0.5)).float().mean()), float(cost.mean())


@pytest.mark.slow
def test_parity_of_sixteen_bits_is_learned() -> None:
    """Calibrated: 0.993 after 3,500 updates, 32 CPU seconds, at a mean cost of 5.7."""
    right, cost = parity(10, 5000)
    assert right > 0.97
    assert cost > 3, "it takes more than one step"
