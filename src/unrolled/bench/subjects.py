"""What is timed and checked: a cell by a backend, the published loop, torch's modules, an operation, decoding."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.bench.decode import decode_amount, decode_case
from unrolled.bench.material import Case, Material
from unrolled.bench.plan import PEER, PUBLISHED, TORCH, Row, Sizes
from unrolled.cells import CELLS, Cell, CellConfig
from unrolled.core.tree import flatten, leaves, map_tree
from unrolled.kernels.cell_loop import Weights, silent
from unrolled.kernels.dispatch import Compute, Operation

__all__ = ["amount_of", "call_of", "case_of", "make_cell"]

# Passes over the products of a forward step: the gradients of input and of weights are one more each.
_PASSES = {"forward": 1, "step": 1, "both": 3}


def make_cell(config: CellConfig, width: int) -> Cell:
    """A cell whose input, or each of its streams, has its own width; the numbers drawn elsewhere stay as they are.

    Raises:
        UsageError: the options do not go with the width.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cls = CELLS[config.name]
        return cls(width * cls.streams(config), width, config)


def case_of(row: Row, sizes: Sizes, material: Material) -> Case:
    """The subject of a row at any sizes.

    Raises:
        UsageError: a cell's options do not go with the width.
    """
    if row.mode == "decode":
        return decode_case(row, sizes, material)
    if (operation := row.operation()) is not None:
        return _operation(operation, row, sizes, material)
    if row.backend == TORCH:
        return _torch_module(row, sizes, material)
    return _cell(row, sizes, material)


def amount_of(row: Row) -> int:
    """Floating-point operations of the matrix products of one timed call, or the bytes that an operation without any
    must move, or those of the weights where they are decoded from."""
    if row.mode == "decode":
        return decode_amount(row)
    if (operation := row.operation()) is not None:
        assert operation.amount is not None
        return operation.amount(row.sizes, row.mode == "both")
    cls = CELLS[row.subject.removeprefix(f"{TORCH}.").lower()] if row.config is None else CELLS[row.subject]
    config = row.config or cls.Config()
    each = cls.flops_per_token(config, row.sizes.width * cls.streams(config), row.sizes.width)
    return each * row.sizes.batch * row.sizes.window * _PASSES[row.mode]


def call_of(case: Case, mode: str, material: Material) -> Callable[[], None]:
    """One timed call: a window forwards, forwards and backwards, or step by step."""

    def forward() -> None:
        with torch.no_grad():
            case.forward()

    def step() -> None:
        assert case.stepwise is not None
        with torch.no_grad():
            case.stepwise()

    def both() -> None:
        # as in training, nothing comes back from beyond the window: only the output has a gradient
        y = case.forward()[0]
        torch.autograd.grad(y, wanted, material.normal("gradient", *y.shape), allow_unused=True)

    wanted = list(case.wanted.values())
    return {"forward": forward, "decode": forward, "step": step, "both": both}[mode]


def _cell(row: Row, sizes: Sizes, material: Material) -> Case:
    assert row.config is not None
    config = row.config
    shared: Cell = material.module((config, sizes.width), lambda: make_cell(config, sizes.width))
    cell = copy.copy(shared)  # the same parameters, computed in another way
    cell.compute = Compute.parse({"backend": _backend(row), "precision": row.precision})
    start = cell.initial_state(sizes.batch, dtype=material.dtype)

    def moved(part: Tensor) -> Tensor:
        """A number of tokens, or a place, stays what it is."""
        return part + 0.5 * material.normal("state", *part.shape) if part.is_floating_point() else part

    state = map_tree(moved, start)
    return _recurrent(cell, _published(cell) if row.backend == PUBLISHED else cell, state, sizes, material)


def _backend(row: Row) -> str:
    """The published loop calls no operation, so that its backend is never asked for."""
    return "auto" if row.backend == PUBLISHED else row.backend


def _published(cell: Any) -> Callable[[Tensor, Any], tuple[Tensor, Any]]:
    """The loop as it is usually written: one step of the input after another, projected inside the loop."""

    def run(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        w = Weights(cell.effective_weights(), cell.compute.precision)
        outputs = []
        for t in range(x.shape[1]):
            y, state = cell.step(cell.project(x[:, t], w), state, w, silent)
            outputs.append(y)
        return torch.stack(outputs, 1), state

    return run


def _torch_module(row: Row, sizes: Sizes, material: Material) -> Case:
    name, width = row.subject.removeprefix(f"{TORCH}."), sizes.width
    module = material.module((name, width), lambda: getattr(nn, name)(width, width, batch_first=True))
    parts = [0.5 * material.normal(f"state {i}", 1, sizes.batch, width) for i in range(2 if name == "LSTM" else 1)]
    return _recurrent(module, module, tuple(parts) if len(parts) > 1 else parts[0], sizes, material)


def _recurrent(module: nn.Module, run: Any, state: Any, sizes: Sizes, material: Material) -> Case:
    """The case of ``run(x, state) -> (y, state)``, with the parameters of ``module``."""
    x = material.normal("input", sizes.batch, sizes.window, sizes.width).requires_grad_()
    state = map_tree(lambda part: part.detach().clone().requires_grad_(part.is_floating_point()), state)
    wanted = {"input": x, **{f"initial state {name}": part for name, part in flatten(state).items()}}
    wanted |= dict(module.named_parameters())

    def forward() -> tuple[Tensor, ...]:
        y, final = run(x, state)
        return y, *leaves(final)

    def stepwise() -> tuple[list[Tensor], list[Tensor]]:
        pieces = material.once(("pieces", sizes), lambda: [piece.contiguous() for piece in x.detach().split(1, 1)])
        outputs, carried = [], state
        for piece in pieces:
            y, carried = run(piece, carried)
            outputs.append(y)
        return outputs, leaves(carried)

    return Case({name: part for name, part in wanted.items() if part.requires_grad}, forward, stepwise)


def _operation(operation: Operation, row: Row, sizes: Sizes, material: Material) -> Case:
    assert operation.inputs is not None
    inputs, key = operation.inputs, (row.subject, row.precision, sizes)

    def draw() -> dict[str, Tensor]:
        given = inputs(sizes, lambda name, *shape: material.normal(f"{row.subject} {name}", *shape))
        return {name: value.detach().clone() for name, value in given.items()}

    given = material.once(key, draw)
    wanted = {name: value.requires_grad_() for name, value in given.items() if value.is_floating_point()}

    def forward() -> tuple[Tensor, ...]:
        if row.backend == PUBLISHED:
            assert operation.published is not None
            return operation.published(given)
        if row.backend == PEER:
            assert operation.peer is not None
            return operation.peer[1](given)
        assert operation.call is not None
        return operation.call(given, row.backend, row.precision)

    return Case(wanted, forward, None)
