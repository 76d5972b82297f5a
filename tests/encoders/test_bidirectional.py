"""A cell in both directions."""

from typing import Any

import torch

from conformance.tolerance import assert_close
from unrolled.cells import CELLS
from unrolled.model.blocks import StackConfig, make_stack


def test_it_is_torchs() -> None:
    torch.manual_seed(0)
    cell: Any = CELLS["bidirectional"](5, 8, CELLS.parse("bidirectional")).double()
    layer = torch.nn.LSTM(5, 4, bidirectional=True, batch_first=True).double()
    with torch.no_grad():
        for own, end in ((cell.forwards, ""), (cell.backwards, "_reverse")):
            getattr(layer, f"weight_ih_l0{end}").copy_(own.weight_ih)
            getattr(layer, f"weight_hh_l0{end}").copy_(own.weight_hh)
            getattr(layer, f"bias_ih_l0{end}").copy_(own.bias)
            getattr(layer, f"bias_hh_l0{end}").zero_()
    x = torch.randn(2, 7, 5, dtype=torch.float64)
    assert_close(cell(x)[0], layer(x)[0], "torch's layer")


def test_cells_stand_where_their_layer_does() -> None:
    """HGRN's lower bounds: of each direction one table for all layers, of which each takes its row."""
    config = CELLS.parse({"name": "bidirectional", "cell": "hgrn"})
    stack: Any = make_stack(8, [config, config], [8, 8], StackConfig())
    first, second = stack.cells()
    for side in ("forwards", "backwards"):
        a, b = getattr(first, side), getattr(second, side)
        assert a.bounds is b.bounds
        assert (a.place.index, b.place.index) == (0, 1)
    assert first.forwards.bounds is not first.backwards.bounds
    tables = [name for name, _ in stack.named_parameters() if "bounds" in name]
    assert len(tables) == 2
