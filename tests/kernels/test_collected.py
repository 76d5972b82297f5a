"""Weight gradients collected over a window and made by one product."""

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from conformance.material import wave
from conformance.tolerance import assert_close
from kernels.collecting import BATCH, IN, TIME, WIDTH, check, gradients, loss_of, make, reference_gradients
from unrolled.kernels.cell_loop import silent
from unrolled.kernels.cell_loop import weights as weights_module
from unrolled.kernels.cell_loop.weights import CollectingWeights, Weights
from unrolled.kernels.dispatch import Compute


class _Products(TorchDispatchMode):
    """The shapes of all two-dimensional products."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.shapes.append(tuple(out.shape))
        return out


# the recurrent matrices of each cell, by name; sizes are chosen so that no shape is met by another product
RECURRENT = {
    "lstm": ("weight_hh",),
    "gru": ("weight_hh",),
    "mlstm": ("weight_mh", "weight_m"),
    "mrnn": ("weight_mh", "weight_m"),
    "mogrifier": ("round1", "round2", "round3", "round4", "round5", "cell.weight_hh", "cell.weight_ih"),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_one_product_per_matrix_and_window(name: str) -> None:
    def backward_products(backend: str) -> tuple[list[tuple[int, ...]], Any]:
        cell = make({"name": name, "factor": 7} if name.startswith(("mlstm", "mrnn")) else name, backend)
        x = wave(BATCH, TIME, IN).requires_grad_()
        loss = loss_of(cell, x)
        with _Products() as products:
            loss.backward()
        return products.shapes, cell

    collected, cell = backward_products("generic")
    plain, _ = backward_products("reference")
    for key in RECURRENT[name]:
        shape = tuple(cell.get_parameter(key).shape)
        either = {shape, shape[::-1]}  # autograd may make the transposed product
        same = [other for other in RECURRENT[name] if tuple(cell.get_parameter(other).shape) in either]
        found = sum(collected.count(s) for s in either)
        assert found == len(same), f"{found} products of the shape of {key}"
        assert sum(plain.count(s) for s in either) >= TIME * len(same) - 1, "the reference makes one a step"


def test_small_matrices_go_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "_WORTH_COLLECTING", 4 * WIDTH * WIDTH)
    x = wave(BATCH, TIME, IN)
    for name, matrices in (("lstm", 1), ("mlstm", 1), ("gru", 0)):
        cell = make(name)
        made = CollectingWeights(cell.effective_weights(), steps=TIME)
        state = cell.initial_state(BATCH, dtype=x.dtype)
        for t in range(TIME):
            _, state = cell.step(cell.project(x[:, t], Weights(made.named)), state, made, silent)
        assert len(made.matrices) == matrices
        expected = reference_gradients(cell, x.requires_grad_())
        check(gradients(loss_of(cell, x), {"x": x, **dict(cell.named_parameters())}), expected, name)


@pytest.fixture(params=["lstm", "mlstm", "mogrifier", "mlstm per_gate"])
def cell(request: pytest.FixtureRequest) -> Any:
    name, *sharing = request.param.split()
    return make({"name": name, "sharing": sharing[0]} if sharing else name)


def test_partial_and_repeated_backward_passes(cell: Any) -> None:
    x = wave(BATCH, TIME, IN).requires_grad_()
    expected = reference_gradients(cell, x)
    parameters = dict(cell.named_parameters())
    first = dict(list(parameters.items())[:1])
    last = dict(list(parameters.items())[-1:])
    loss = loss_of(cell, x)
    orders = [{"x": x}, {"x": x, **parameters}, parameters, first, parameters, last, {"x": x}, first, last, parameters]
    for k, wanted in enumerate(orders):
        check(gradients(loss, wanted), expected, f"pass {k}")
    loss.backward()
    check({name: value.grad for name, value in parameters.items() if value.grad is not None}, expected, "backward()")


def test_a_pass_that_breaks_off_leaves_nothing_behind(cell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = wave(BATCH, TIME, IN).requires_grad_()
    expected = reference_gradients(cell, x)
    handles: list[Any] = []

    class Halt(Exception):
        pass

    def halt(_: Tensor) -> None:
        raise Halt

    original = type(cell).step

    def step(self: Any, pre: Any, state: Any, w: Any, tap: Any) -> Any:
        y, new = original(self, pre, state, w, tap)
        if len(handles) < 3:  # the third step's: the pass breaks off when the last steps are behind it
            handles.append(new.h.register_hook(halt) if len(handles) == 2 else None)
        return y, new

    monkeypatch.setattr(type(cell), "step", step)
    loss = loss_of(cell, x)
    with pytest.raises(Halt):
        loss.backward(retain_graph=True)
    handles[2].remove()
    wanted = {"x": x, **dict(cell.named_parameters())}
    check(gradients(loss, wanted), expected, "after a broken pass")


def test_two_losses_of_one_window(cell: Any) -> None:
    x = wave(BATCH, TIME, IN)
    parameters = dict(cell.named_parameters())
    y, _ = cell(x)
    early, late = y[:, :2].square().sum(), y[:, 2:].square().sum()
    parts = [gradients(loss, parameters) for loss in (early, late, early)]
    whole = gradients(early + late, parameters)
    check({name: parts[0][name] + parts[1][name] for name in parameters}, whole, "sum of parts")
    check(parts[2], parts[0], "the early part again")


def test_gradients_add_up_over_windows(cell: Any) -> None:
    x = wave(BATCH, TIME, IN)
    expected = reference_gradients(cell, x.requires_grad_())
    for _ in range(2):
        loss_of(cell, x).backward()
    for name, parameter in cell.named_parameters():
        assert parameter.grad is not None
        assert_close(parameter.grad, 2 * expected[name], name)


def test_frozen_weights(cell: Any) -> None:
    x = wave(BATCH, TIME, IN).requires_grad_()
    expected = reference_gradients(cell, x)
    names = list(cell.recurrent_weights)
    for name in names:
        cell.get_parameter(name).requires_grad_(False)
    wanted = {"x": x, **{name: p for name, p in cell.named_parameters() if name not in names}}
    check(gradients(loss_of(cell, x), wanted), expected, "frozen recurrent weights")


def test_a_change_in_place_before_backward_is_an_error(cell: Any) -> None:
    loss = loss_of(cell, wave(BATCH, TIME, IN))
    with torch.no_grad():
        cell.get_parameter(cell.recurrent_weights[0]).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_no_gradients_wanted(cell: Any) -> None:
    x = wave(BATCH, TIME, IN)
    cell.compute = Compute(backend="reference")
    expected = cell(x)[0].detach()
    cell.compute = Compute(backend="generic")
    with torch.no_grad():
        y, _ = cell(x)
    assert not y.requires_grad
    assert_close(y, expected, "without gradients")


def test_nothing_outlives_the_window(cell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Any]] = []
    original = weights_module._Matrix.__init__

    def spy(self: Any, *args: Any) -> None:
        original(self, *args)
        made.append(weakref.ref(self))

    monkeypatch.setattr(weights_module._Matrix, "__init__", spy)
    gc.collect()
    gc.disable()
    try:
        loss = loss_of(cell, wave(BATCH, TIME, IN))
        loss.backward()
        held = [matrix for matrix in (ref() for ref in made) if matrix is not None]
        assert held
        assert not any(matrix.inputs or matrix.grads for matrix in held), "lists kept after backward"
        del loss, held
        assert not any(ref() is not None for ref in made), "prepared weights wait for the garbage collector"
    finally:
        gc.enable()
