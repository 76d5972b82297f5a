"""Exponentials, quotients, maxima and logarithms of gates in native steps: values, gradients, far out, every set."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from unrolled.cells import CellConfig, StepCell
from unrolled.cells.base import HiddenState
from unrolled.kernels.cell_loop import native
from unrolled.kernels.cpu import instruction_sets, library, why_no_library
from unrolled.kernels.dispatch import Compute

pytestmark = pytest.mark.skipif(why_no_library() is not None, reason=str(why_no_library()))

FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "exp": lambda x, h: torch.exp(x) + 0.5 * h,
    "logsigmoid": lambda x, h: logsigmoid(x) + 0.5 * h,
    "quotient": lambda x, h: h / (1.5 + torch.sigmoid(x)),
    "number over": lambda x, h: 2 / (1.5 + torch.sigmoid(x - h)),
    "over number": lambda x, h: (x + h) / 3,
    "maximum": lambda x, h: torch.maximum(x, h),
    "gate": lambda x, h: torch.exp(x - torch.maximum(x, logsigmoid(h))) / (1 + torch.exp(h - 3)),
}


class FunctionConfig(CellConfig):
    name: str = "function"


class Function(StepCell):
    """h(t) = f(W x(t), h(t-1))."""

    Config, State = FunctionConfig, HiddenState

    def __init__(self, width: int, function: Callable[[Any, Any], Any]):
        super().__init__(width, width, FunctionConfig())
        self.weight = nn.Parameter(torch.eye(width))
        self.function = function

    def project(self, x: Tensor, w: Any) -> Tensor:
        return w.linear("weight", x)

    def step(self, pre: Any, state: Any, w: Any, tap: Any) -> Any:
        h = self.function(pre, state.h)
        return h, HiddenState(h)


@pytest.fixture(params=instruction_sets(), autouse=True)
def one_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend computes with one instruction set after another."""
    monkeypatch.setattr(native, "library", lambda: library(request.param))


def outcome(cell: Function, backend: str, x: Tensor, h: Tensor) -> list[Tensor]:
    cell.compute = Compute(backend=backend)
    x, h = x.clone().requires_grad_(), h.clone().requires_grad_()
    y, state = cell(x, HiddenState(h))
    weights = torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).view_as(y)
    return [y, state.h, *torch.autograd.grad((y * weights).sum(), [x, h, cell.weight])]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-11), (torch.float32, 3e-6)])
def test_values_and_gradients(name: str, dtype: torch.dtype, limit: float) -> None:
    cell = Function(21, FUNCTIONS[name]).to(dtype)
    torch.manual_seed(0)
    x, h = torch.randn(3, 5, 21, dtype=dtype), torch.randn(3, 21, dtype=dtype)
    for found, expected in zip(outcome(cell, "native", x, h), outcome(cell, "reference", x, h), strict=True):
        torch.testing.assert_close(found, expected, rtol=limit, atol=limit)


@pytest.mark.parametrize("values", [torch.linspace(-12, 12, 4001), torch.linspace(-1e-3, 1e-3, 801),
                                    torch.linspace(80, 90, 101), torch.linspace(-90, -80, 101)])  # fmt: skip
def test_they_are_as_exact_as_float32_allows(values: Tensor) -> None:
    exact = values.double()
    for function, wanted in ((torch.exp, exact.exp()), (logsigmoid, logsigmoid(exact))):
        cell = Function(1, lambda x, h, function=function: function(x) + h)
        cell.compute = Compute(backend="native")
        with torch.no_grad():
            found = cell(values.view(-1, 1, 1))[0].flatten()
        wanted = wanted.float()  # beyond the largest number is infinity, and vanishing ones may be zero
        torch.testing.assert_close(found, wanted, rtol=6e-7, atol=1e-37)


def test_far_out() -> None:
    values = torch.tensor([-1e30, -1e4, -200.0, 0.0, 200.0, 1e30, torch.inf, -torch.inf, torch.nan])
    for function in (torch.exp, logsigmoid):
        cell = Function(1, lambda x, h, function=function: function(x) + h)
        cell.compute = Compute(backend="native")
        with torch.no_grad():
            found = cell(values.view(-1, 1, 1))[0].flatten()
        torch.testing.assert_close(found, function(values), rtol=6e-7, atol=1e-37, equal_nan=True)
