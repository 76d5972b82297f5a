"""State-space cells: windows are recurrences, at lengths where Fourier transforms and powers are at work."""

from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled.cells import CELLS
from unrolled.cells.ssm.cell import by_documents
from unrolled.cells.ssm.diagonal import Diagonal, expm1, powers
from unrolled.kernels.dispatch import Compute, choices, forget_choices

CONFIGS = [
    {"name": "s4d", "modes": 8, "dt_min": 0.01, "dt_max": 0.5},
    {"name": "s4d", "modes": 6, "init": "legs", "discretisation": "bilinear"},
    {"name": "dss", "modes": 5, "length": 70},
    {"name": "dss", "modes": 5, "form": "exp"},
    {"name": "gss", "modes": 4, "inner": 1.0},
    {"name": "mega_ema", "modes": 4},
]
FULL = [
    {"name": "lssl", "modes": 6, "outputs": 2, "dt_max": 1.0},
    {"name": "s4", "modes": 8, "dt_max": 0.5},
]
SYSTEMS = pytest.mark.parametrize("options", CONFIGS, ids=lambda options: "-".join(map(str, options.values())))


def make(options: dict[str, Any], in_width: int = 3, width: int = 4) -> Any:
    torch.manual_seed(0)
    config = CELLS.parse(options)
    return CELLS[config.name](in_width, width, config).double()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outcome(cell: Any, backend: str, x: Tensor, start: Tensor, reset: Tensor | None) -> list[Tensor]:
    cell.compute = Compute(backend=backend)
    x, start = x.clone().requires_grad_(), start.clone().requires_grad_()
    y, state = cell(x, cell.State(start), reset)
    loss = (y * draw(*y.shape, seed=8)).sum() + (state.s * draw(*state.s.shape, seed=9)).sum()
    return [y, state.s, *torch.autograd.grad(loss, [x, start, *cell.parameters()])]


def check_window(options: dict[str, Any], time: int, with_resets: bool) -> None:
    cell = make(options)
    x, start = draw(3, time, 3), draw(*cell.initial_state(3).s.shape, seed=1)
    reset = None
    if with_resets:
        reset = torch.zeros(3, time, dtype=torch.bool)
        reset[0, 0] = reset[0, 5] = reset[2, time // 2] = reset[2, -1] = True
    forget_choices()
    found = outcome(cell, "auto", x, start, reset)
    assert choices()[f"fft_conv {cell.name}"] == "fft"
    for part, value in zip(found, outcome(cell, "reference", x, start, reset), strict=True):
        torch.testing.assert_close(part, value, rtol=1e-9, atol=1e-9)


@SYSTEMS
@pytest.mark.parametrize("time", [9, 37, 64])
@pytest.mark.parametrize("with_resets", [False, True])
def test_a_window_is_its_recurrence(options: dict[str, Any], time: int, with_resets: bool) -> None:
    check_window(options, time, with_resets)


@pytest.mark.parametrize("options", FULL, ids=lambda options: options["name"])
@pytest.mark.parametrize(("time", "with_resets"), [(37, True), (63, False), (64, False), (300, False), (530, True)])
def test_a_window_of_a_full_matrix_is_its_recurrence(options: dict[str, Any], time: int, with_resets: bool) -> None:
    """Below 64 steps, from there on by the generating function, and beyond one piece."""
    check_window(options, time, with_resets)


def test_documents_of_a_row_are_apart() -> None:
    """Documents of every length and place, against each by itself."""
    a, b, c = torch.rand(2, 3).double(), draw(2, 3), draw(2, 3, seed=1)
    system = Diagonal(a, b, c)
    u, start = draw(4, 7, 2, seed=2), draw(4, 2, 3, seed=3)
    reset = torch.zeros(4, 7, dtype=torch.bool)
    for row, begins in enumerate([(), (0,), (3, 4), (0, 6)]):
        reset[row, list(begins)] = True
    y, last = by_documents(lambda u, s: system.outputs(u, s, "auto", ""), system.final, u, start, reset)
    expected, final, _ = system.steps(u, start, reset, "reference", "")
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(last, final, rtol=0, atol=1e-12)


@SYSTEMS
def test_the_filter_is_the_impulse_response(options: dict[str, Any]) -> None:
    """Outputs of the system for an impulse, step by step, are sums of c b a^l, written out."""
    system = make(options).system()
    channels, time = len(system.a), 40
    impulse = torch.zeros(1, time, channels, dtype=torch.float64)
    impulse[:, 0] = 1
    y, last, states = system.steps(
        impulse, torch.zeros_like(make(options).initial_state(1).s).double(), None, "auto", ""
    )
    powers_of = torch.stack([system.a**lag for lag in range(time)])
    expected = (system.c * system.b * powers_of).sum(-1)
    torch.testing.assert_close(y[0], expected.real if expected.is_complex() else expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(states[:, -1], last)


def test_powers_and_expm1() -> None:
    a = torch.polar(torch.tensor([0.5, 0.999, 1.0]).double(), torch.tensor([0.0, 2.0, 1.0]).double())
    expected = torch.stack([a**k for k in range(23)], -1)
    torch.testing.assert_close(powers(a, 23), expected, rtol=0, atol=1e-12)
    assert powers(a, 1).shape == (3, 1)
    small = torch.tensor([1e-12 + 1e-13j, -1e-9j, 0.3 - 2j], dtype=torch.complex128)
    series = small + small**2 / 2 + small**3 / 6
    torch.testing.assert_close(expm1(small)[:2], series[:2], rtol=1e-14, atol=0)
    torch.testing.assert_close(expm1(small)[2], torch.exp(small[2]) - 1, rtol=0, atol=1e-14)


@SYSTEMS
def test_extreme_values_are_finite(options: dict[str, Any]) -> None:
    """Parameters and inputs far out: outputs, states and gradients are numbers."""
    for size in (-30.0, 30.0):
        cell = make(options)
        with torch.no_grad():
            for name, parameter in cell.named_parameters():
                if name in ("log_decay", "log_frequency", "delta", "alpha"):
                    parameter.fill_(min(size, 4.0) if name == "log_frequency" else size)
        for part in outcome(cell.float(), "auto", 100 * draw(2, 20, 3).float(), cell.initial_state(2).s, None):
            assert bool(part.isfinite().all())


@pytest.mark.parametrize("name", ["s4d", "dss", "gss"])
def test_spectra_have_no_decay_a_lower_rate_and_are_not_drawn(name: str) -> None:
    cell = make({"name": name, "rate": 0.125})
    rule = cell.parameter_rules["log_decay"]
    assert (rule.decay, rule.rate, rule.drawn) == (False, 0.125, False)
    assert not cell.parameter_rules["c"].drawn
