"""What each encoder is held to: what holds for any cell, and what holds for rows that are padded."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from conformance.cells.build import BATCH, MakeCell, build, fitted
from conformance.cells.checks import CHECKS as OF_CELLS
from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.core.errors import UsageError

__all__ = ["CHECKS", "SHARED"]

SHARED = ("num_params", "widths", "rules", "config", "save_load", "weight_drop")
"""Checks of cells that ask nothing of a state and nothing of the order of time."""

_TIME = 9


def _rows(cell: Any) -> tuple[Tensor, Tensor]:
    """Rows with 0 and 3 places of padding, whose numbers are large."""
    x = wave(BATCH, _TIME, cell.in_width)
    x[1, :3] = 50.0
    reset = torch.zeros(BATCH, _TIME, dtype=torch.bool)
    reset[0, 0] = reset[1, 3] = True
    return x, reset


def check_shapes(make: MakeCell) -> None:
    """(batch, time, out_width) of the input's type, also for one row and one token; the state is empty."""
    for dtype in (torch.float32, torch.float64):
        cell = build(make, dtype)
        for batch, time in ((3, 7), (1, 1), (2, 1)):
            y, state = cell(wave(batch, time, cell.in_width, dtype=dtype))
            assert y.shape == (batch, time, cell.out_width)
            assert y.dtype == dtype
            assert torch.isfinite(y).all()
            assert not tuple(state)


def check_padding(make: MakeCell) -> None:
    """What a padded row gives is what it gives alone, whatever stands in the padding; there it gives 0."""
    cell = build(make)
    x, reset = _rows(cell)
    y, _ = cell(x, None, reset)
    assert_close(y[1:, 3:], cell(x[1:, 3:])[0], "the row alone")
    assert_close(y[:1], cell(x[:1])[0], "a row without padding")
    assert not y[1, :3].any(), "padding gives 0"


def check_padding_gradient(make: MakeCell) -> None:
    """No gradient reaches the padding, and that of the parameters is finite."""
    cell = build(make)
    x, reset = _rows(cell)
    x.requires_grad_()
    y, _ = cell(x, None, reset)
    grads = torch.autograd.grad(y.square().sum(), [x, *cell.parameters()], allow_unused=True)
    assert grads[0] is not None
    assert not grads[0][1, :3].any()
    assert all(torch.isfinite(grad).all() for grad in grads if grad is not None)


def check_sees_the_future(make: MakeCell) -> None:
    """Every output depends on every token of its row."""
    cell = build(make)
    x = wave(1, 6, cell.in_width).requires_grad_()
    y, _ = cell(x)
    for t in range(6):
        (grad,) = torch.autograd.grad(y[0, t].sum(), x, retain_graph=True)
        assert (grad[0].abs().sum(-1) > 0).all(), f"output {t}"


def check_gradients(make: MakeCell) -> None:
    """Gradients of the input and of the parameters are those of finite differences, with padding."""
    cell = build(make)
    x, reset = _rows(cell)
    x[1, :3] = 0.5  # large numbers in differences would be rounding alone
    names = [name for name, _ in cell.named_parameters()]

    def outputs(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(cell, dict(zip(names, values, strict=True)), (x, None, reset))[0]

    values = [parameter.detach().clone().requires_grad_() for parameter in cell.parameters()]
    x.requires_grad_()
    assert torch.autograd.gradcheck(outputs, (x, *values), eps=1e-6, atol=1e-5, rtol=1e-4, fast_mode=True)


def check_pure(make: MakeCell) -> None:
    """Equal calls give equal outputs, and leave the input as it was."""
    cell = build(make)
    x, reset = _rows(cell)
    before = x.clone()
    assert torch.equal(cell(x, None, reset)[0], cell(x, None, reset)[0])
    assert torch.equal(x, before)


def check_backends(make: MakeCell) -> None:
    """Every backend that it names gives the same."""
    cell = build(make, backend="reference")
    x, reset = _rows(cell)
    wanted, _ = cell(x, None, reset)
    assert cell.backends()
    for backend in cell.backends():
        other = build(make, backend=backend)
        assert_close(other(x[:1])[0], wanted[:1], backend)
        with contextlib.suppress(UsageError):  # a backend may refuse padding, in words
            assert_close(other(x, None, reset)[0], wanted, f"{backend}, padded")


CHECKS: dict[str, Callable[[MakeCell], None]] = {
    **{name: OF_CELLS[name] for name in SHARED},
    **{
        name.removeprefix("check_"): (lambda make, check=check: check(fitted(make)))
        for name, check in list(globals().items())
        if name.startswith("check_")
    },
}
