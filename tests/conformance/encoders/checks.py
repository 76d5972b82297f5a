"""What each encoder is held to: what holds for any cell, and what holds for rows that are padded."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.cells.build import BATCH, MakeCell, build, fitted
from conformance.cells.checks import CHECKS as OF_CELLS
from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.cells import Noise, Place
from unrolled.core.errors import UsageError

__all__ = ["CHECKS", "SHARED"]

SHARED = ("num_params", "widths", "rules", "config", "save_load", "weight_drop")
"""Checks of cells that ask nothing of a state and nothing of the order of time."""

_TIME = 9


def _steps(cell: Any, wanted: int) -> int:
    """So many steps, or those that its rows must have."""
    return cell.row_steps(cell.config) or wanted


def _rows(cell: Any) -> tuple[Tensor, Tensor | None]:
    """Rows with 0 and 3 places of padding, whose numbers are large; without where no row may be padded."""
    if steps := cell.row_steps(cell.config):
        return wave(BATCH, steps, cell.in_width), None
    x = wave(BATCH, _TIME, cell.in_width)
    x[1, :3] = 50.0
    reset = torch.zeros(BATCH, _TIME, dtype=torch.bool)
    reset[0, 0] = reset[1, 3] = True
    return x, reset


def check_shapes(make: MakeCell) -> None:
    """(batch, time, out_width) of the input's type, also for one row and one token; the state is empty."""
    for dtype in (torch.float32, torch.float64):
        cell = build(make, dtype)
        for batch, wanted in ((3, 7), (1, 1), (2, 1)):
            time = _steps(cell, wanted)
            y, state = cell(wave(batch, time, cell.in_width, dtype=dtype))
            assert y.shape == (batch, time, cell.out_width)
            assert y.dtype == dtype
            assert torch.isfinite(y).all()
            assert not tuple(state)


def check_padding(make: MakeCell) -> None:
    """What a padded row gives is what it gives alone, whatever stands in the padding; there it gives 0. Rows of a fixed
    length are refused at any other, and padded, in a sentence that names it."""
    cell = build(make)
    if steps := cell.row_steps(cell.config):
        reset = torch.zeros(1, steps, dtype=torch.bool)
        reset[0, 1:2] = True
        for x, begins in ((wave(1, steps + 1, cell.in_width), None), (wave(1, steps, cell.in_width), reset)):
            with pytest.raises(UsageError, match=f"rows of {steps} steps"):
                cell(x, None, begins)
        assert_close(cell(x)[0], cell(x.repeat(2, 1, 1))[0][1:], "a row beside another")
        return
    x, reset = _rows(cell)
    assert reset is not None
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
    assert reset is None or not grads[0][1, :3].any()
    assert all(torch.isfinite(grad).all() for grad in grads if grad is not None)


def check_sees_the_future(make: MakeCell) -> None:
    """Every output depends on every token of its row, after as many layers as the encoder says."""
    first = build(make)
    layers = [first]
    while len(layers) < first.sees_all_after:
        layers.append(build(make, sizes=(layers[-1].out_width, first.width)))
    for i, layer in enumerate(layers):
        layer.take_place(Place(i, len(layers), i, len(layers), turn=i))
    time = _steps(first, 6)
    x = wave(1, time, first.in_width).requires_grad_()
    y: Tensor = x
    for layer in layers:
        y, _ = layer(y)
    for t in range(time):
        (grad,) = torch.autograd.grad(y[0, t].sum(), x, retain_graph=True)
        assert (grad[0].abs().sum(-1) > 0).all(), f"output {t}"


def check_inner_masks(make: MakeCell) -> None:
    """Dropout masks of ones at a site inside change nothing, others do; a site that is not there is refused."""
    cell = build(make)
    x, reset = _rows(cell)
    wanted, _ = cell(x, None, reset)
    for site, width in cell.inner_sites.items():
        ones = x.new_ones(BATCH, 1, width)
        assert torch.equal(cell(x, None, reset, Noise(inner={site: ones}))[0], wanted), f"ones at {site}"
        for mask in (0.5 * ones, ones.repeat(1, x.shape[1], 1) * (wave(*x.shape[:2], width) > 0)):
            y, _ = cell(x, None, reset, Noise(inner={site: mask}))
            assert not torch.allclose(y, wanted), f"a mask at {site} changes nothing"
    with pytest.raises(UsageError, match="no such site"):
        cell(x, None, reset, Noise(inner={"no_such_site": x}))
    with pytest.raises(UsageError, match="no state for noise"):
        cell(x, None, reset, Noise(state_in=x[:, :1]))


def check_gradients(make: MakeCell) -> None:
    """Gradients of the input and of the parameters are those of finite differences, with padding."""
    cell = build(make)
    x, reset = _rows(cell)
    x[1, :3].clamp_(-0.5, 0.5)  # large numbers in differences would be rounding alone
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
