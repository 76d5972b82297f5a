"""Newton's iteration over a window: every cell's trajectory and gradients, steep weights, resets, refusals."""

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.cells.build import outcome
from unrolled.cells import CELLS, Noise, StepCell
from unrolled.cells.gated.gru import GRU, GRUConfig
from unrolled.cells.gated.lstm import LSTM, LSTMConfig
from unrolled.core.errors import UsageError
from unrolled.kernels.cell_loop import newton
from unrolled.kernels.dispatch import Compute

BATCH, WIDTH, LIMIT = 2, 8, 1e-9
STEPPED = [name for name in CELLS if issubclass(CELLS[name], StepCell)]
CONFIGS = {name: CELLS[name].EXAMPLES[0] for name in STEPPED}
# without norms, see test_a_norm_that_expands
CONFIGS["hyperlstm"] = CELLS["hyperlstm"].EXAMPLES[1]


def make(name: str, times: float = 1.0) -> Any:
    torch.manual_seed(0)
    cell = CELLS[name](WIDTH, WIDTH, CONFIGS[name]).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(times)
    return cell


def inputs(cell: Any, steps: int) -> tuple[Tensor, Any]:
    torch.manual_seed(1)
    return torch.randn(BATCH, steps, WIDTH, dtype=torch.float64), cell.initial_state(BATCH, dtype=torch.float64)


def both(cell: Any, *args: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    found = []
    for backend in ("newton", "reference"):
        cell.compute = Compute(backend=backend)
        found.append(outcome(cell, *args))
    return found[0], found[1]


def agree(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        error = (found[name] - value).abs().max() / value.abs().max().clamp(min=1)
        assert error < LIMIT, f"{name}: {error:.1e}"


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPPED)
def test_a_thousand_steps_of_every_cell(name: str) -> None:
    """At its start, in at most 20 iterations; with resets inside too."""
    cell = make(name)
    x, state = inputs(cell, 1000)
    with torch.no_grad():
        found = newton.solve(cell, x, state)
    assert found.states is not None
    assert 1 < found.iterations <= 20
    agree(*both(cell, x, state))
    reset = torch.zeros(BATCH, 1000, dtype=torch.bool)
    reset[0, [0, 300, 301]] = reset[1, 999] = True
    agree(*both(cell, x, state, reset))


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPPED)
def test_steep_weights_converge_or_the_loop_runs(name: str, caplog: pytest.LogCaptureFixture) -> None:
    cell = make(name, times=6)
    x, state = inputs(cell, 1000)
    with caplog.at_level(logging.WARNING, "unrolled.kernels"), torch.no_grad():
        found = newton.solve(cell, x, state)
        cell.compute = Compute(backend="newton")
        y, final = cell(x, state)
        cell.compute = Compute(backend="reference")
        expected, last = cell(x, state)
    if found.states is None or "the loop runs" in caplog.text:
        assert f"cell_loop {name}: Newton's iteration has not converged after" in caplog.text
        assert torch.equal(y, expected)
        assert all(torch.equal(part, other) for part, other in zip(final, last, strict=True))
    else:
        assert (y - expected).abs().max() < LIMIT


def test_an_iteration_that_does_not_converge(caplog: pytest.LogCaptureFixture) -> None:
    """Outputs, states and gradients are the loop's, to the last bit, and the log says why."""
    cell = make("gru", times=20)
    x, state = inputs(cell, 200)
    found, expected = both(cell, x, state)
    assert "cell_loop gru: Newton's iteration has not converged after 20 rounds; the loop runs." in caplog.text
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_it_converges_quickly_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    cell = make("lstm")
    x, state = inputs(cell, 200)
    found = newton.solve(cell, x, state)
    assert found.iterations <= 7
    agree(*both(cell, x, state))
    assert "loop" not in caplog.text


def test_a_norm_that_expands(caplog: pytest.LogCaptureFixture) -> None:
    """An LSTM that normalises c forgets on average, but where c is nearly even a step expands by 100 and more: there
    the loop runs, and its numbers are returned to the last bit."""
    cell = LSTM(WIDTH, WIDTH, LSTMConfig(layer_norm=True)).double()
    x, state = inputs(cell, 150)
    found, expected = both(cell, x, state)
    assert "the loop runs" in caplog.text
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_a_value_that_has_not_converged_is_never_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """With too few iterations the loop runs; and what the iteration gives is held against one more step."""
    cell = make("lstm")
    x, state = inputs(cell, 100)
    _, expected = both(cell, x, state)
    monkeypatch.setattr(newton, "ITERATIONS", 2)
    cell.compute = Compute(backend="newton")
    assert torch.equal(outcome(cell, x, state)["output"], expected["output"])
    monkeypatch.undo()
    solve = newton.solve

    def wrong(*args: Any) -> newton.Found:
        found = solve(*args)
        assert found.states is not None
        return found._replace(states=found.states + 1e-6)

    monkeypatch.setattr(newton, "solve", wrong)
    assert torch.equal(outcome(cell, x, state)["output"], expected["output"])


def test_the_first_steps_are_exact_after_as_many_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a window of 20 steps converges whatever the weights are."""
    cell = make("rnn", times=8)
    x, state = inputs(cell, 20)
    found = newton.solve(cell, x, state)
    assert found.states is not None
    agree(*both(cell, x, state))


def test_noise_and_a_projected_output() -> None:
    cell = LSTM(WIDTH, WIDTH, LSTMConfig(projection=3)).double()
    x, state = inputs(cell, 50)
    g = torch.Generator().manual_seed(0)
    masks = [(torch.rand(BATCH, 50, 3, generator=g) > 0.3).double() * 1.4 for _ in range(2)]
    noise = Noise(masks[0], masks[1], {"c": torch.rand(BATCH, 1, WIDTH, generator=g, dtype=torch.float64)})
    agree(*both(cell, x, state, None, noise))


class OwnOutput(GRU):
    """An output that is not the state."""

    def step(self, pre: Any, state: Any, w: Any, tap: Any) -> Any:
        y, new = super().step(pre, state, w, tap)
        return torch.tanh(y + state.h), new


def test_an_output_that_is_not_the_state() -> None:
    torch.manual_seed(0)
    cell = OwnOutput(WIDTH, WIDTH, GRUConfig()).double()
    x, state = inputs(cell, 60)
    reset = torch.zeros(BATCH, 60, dtype=torch.bool)
    reset[1, 20] = True
    agree(*both(cell, x, state, reset))


def test_refusals() -> None:
    cell = make("lstm").float()
    x, state = torch.zeros(1, 4, WIDTH), cell.initial_state(1)
    cell.compute = Compute(backend="newton", precision="bf16")
    with pytest.raises(UsageError, match="it does not compute with bf16 products"):
        cell(x)
    cell.compute = Compute(backend="newton")
    with pytest.raises(UsageError, match="Newton's iteration shows no internals"):
        cell(x, tap=lambda name, value: None)
    wide = torch.zeros(600, 1000, WIDTH)
    with pytest.raises(UsageError, match="its Jacobians would have 153,600,000 numbers, and 134,217,728 are the most"):
        cell(wide, cell.initial_state(600))
    assert newton.refuse(cell, x, state, None, None, None) is None


def test_auto_passes_it_by() -> None:
    from unrolled.bench.plan import serving
    from unrolled.kernels.cell_loop import BACKENDS

    assert BACKENDS["newton"].by_name
    assert [name for name, backend in BACKENDS.items() if backend.by_name] == ["newton"]
    cell = make("lstm")
    assert "newton" in cell.backends()
    assert "newton" not in serving(cell.config, lambda config: cell)
