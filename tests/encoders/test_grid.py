"""Grids: orders and their inverses, and stacks beside plain layers that read forwards and backwards."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unrolled as ur
from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.cells import CELLS, Place
from unrolled.cells.encoders.grid import Grid, GridConfig, Order, order_of, orders
from unrolled.core.errors import UsageError
from unrolled.model.blocks import StackConfig, make_stack


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (5,), (2, 3, 1, 2)])
def test_every_order_and_its_inverse_are_the_identity(shape: tuple[int, ...]) -> None:
    points = np.arange(math.prod(shape)).reshape(shape)
    seen = set()
    for order in orders(len(shape)):
        there, back = order_of(shape, order)
        read = points.transpose(order.axes).reshape(-1)
        assert there.tolist() == (read[::-1] if order.back else read).tolist()
        assert there[back].tolist() == back[there].tolist() == list(range(len(there)))
        seen.add(tuple(there.tolist()))
    assert len(seen) == len(orders(len(shape))) or 1 in shape


def test_orders_are_those_of_the_paper() -> None:
    lines, columns = (0, 1), (1, 0)
    assert orders(1) == [Order((0,), False), Order((0,), True)]
    assert orders(2) == [Order(axes, back) for axes in (lines, columns) for back in (False, True)]
    videos = [(0, 1, 2), (0, 2, 1), (2, 1, 0)]  # t h w, t w h, w h t
    assert orders(3) == [Order(axes, back) for axes in videos for back in (False, True)]
    assert len(orders(4)) == 48


@pytest.mark.parametrize(("shape", "cycle"), [((6,), 2), ((2, 3), 4), ((1, 2, 3), 6)])
def test_layers_take_the_orders_in_turn(shape: tuple[int, ...], cycle: int) -> None:
    config = GridConfig(shape=shape)
    layers = [config, CELLS.parse("mlp")] * 7
    # the first layer has another input, so that it is of another size than the rest
    stack = make_stack(3, layers, [4] * len(layers), StackConfig())
    found = [cell.order for cell in stack.cells() if isinstance(cell, Grid)]
    assert found == [orders(len(shape))[i % cycle] for i in range(7)]
    assert all(a != b for a, b in pairwise(found))


@pytest.mark.parametrize("name", ["mingru", "gru", "mamba"])
def test_a_grid_of_one_axis_alternates_forwards_and_backwards(name: str) -> None:
    torch.manual_seed(0)
    cell: Any = CELLS.parse(name)
    config = GridConfig(cell=cell, shape=(7,))
    grids = make_stack(6, [config] * 3, [6] * 3, StackConfig(kind="residual")).double()
    plain = make_stack(6, [cell] * 3, [6] * 3, StackConfig(kind="residual")).double()
    plain.load_state_dict({name.replace(".cell.", ".", 1): value for name, value in grids.state_dict().items()})
    x = wave(2, 7, 6)
    y = x
    for i, layer in enumerate(plain.cells()):
        entry = plain.norms[i](y)  # type: ignore[operator]
        y = y + (layer(entry.flip(1))[0].flip(1) if i % 2 else layer(entry)[0])
    wanted = plain.final_norm(y)  # type: ignore[misc]
    assert_close(grids(x, grids.initial_state(2))[0], wanted, name)


def test_a_column_is_read_before_the_next() -> None:
    torch.manual_seed(0)
    cell = Grid(2, 4, GridConfig(shape=(3, 4))).double()
    cell.take_place(Place(2, 4, 2, 4, turn=2))
    x = wave(1, 12, 2).requires_grad_()
    (grad,) = torch.autograd.grad(cell(x)[0][0, 4 * 1 + 2].sum(), x)  # line 1, column 2
    seen = (grad[0].abs().sum(-1) > 0).view(3, 4)
    assert seen[:, :2].all()
    assert seen[:, 2].tolist() == [True, True, False]
    assert not seen[:, 3].any()


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 to 4 axes"):
        GridConfig(shape=(0, 3))
    with pytest.raises(UsageError, match="sees both directions already"):
        Grid(4, 4, GridConfig(cell=CELLS.parse("bidirectional")))
    with pytest.raises(UsageError, match="one stream, no prefix"):
        Grid(4, 4, GridConfig(cell=CELLS.parse({"name": "jrt", "heads": 1, "prefix": 4})))
    rows = "task.data={name='directions',rows=16,side=6}"
    settings = [rows, "tokenizer=null", "model.cell={name='grid',shape=[4,8,8]}", "train.steps=1", "train.epochs=null"]
    with pytest.raises(UsageError, match="the grid reads rows of 256 steps as it is set, not of 144"):
        ur.train(ur.experiment("sst2-bilstm", settings), tmp_path / "run", "cpu")


def test_training_is_that_of_the_cell() -> None:
    cell = Grid(4, 4, GridConfig(cell=CELLS.parse("mamba"), shape=(5,)))
    inner = CELLS["mamba"](4, 4, CELLS.parse("mamba")).parameter_rules
    assert cell.parameter_rules == {f"cell.{name}": rule for name, rule in inner.items()} != {}
    both = CELLS["bidirectional"](4, 8, CELLS.parse({"name": "bidirectional", "cell": {"name": "mamba"}}))
    assert set(both.parameter_rules) == {f"{way}.{name}" for way in ("forwards", "backwards") for name in inner}
