"""Checks of what a cell does over time: shapes, splits, resets, causality, rows, purity."""

from typing import Any

import torch
from torch import Tensor

from conformance.material import resets
from conformance.tolerance import assert_close
from unrolled.core.errors import UsageError
from unrolled.core.tree import leaves, map_tree

from .build import BATCH, MakeCell, build, finite, values

TIME = 7


def _same(actual: tuple[Tensor, object], expected: tuple[Tensor, object], what: str) -> None:
    assert_close(actual[0], expected[0], f"{what}: output")
    for k, (part, other) in enumerate(zip(leaves(actual[1]), leaves(expected[1]), strict=True)):
        assert_close(part, other, f"{what}: state tensor {k}")


def _windows(
    cell: Any, time: int, dtype: torch.dtype = torch.float64, start: bool = False
) -> list[tuple[Tensor, Any, int]]:
    """Windows: the input, the state before it, and how many of its first tokens come together, as the cell says;
    ``time`` tokens follow those. One is inside a document, and one at its start where some do or ``start`` asks."""
    inside, prefix = (*values(cell, BATCH, time, dtype), 0), cell.causal_from(cell.config)
    if not prefix and not start:
        return [inside]
    x, _ = values(cell, BATCH, prefix + time, dtype)
    return [inside, (x, cell.initial_state(BATCH, dtype=dtype), prefix)]


def check_shapes(make_cell: MakeCell) -> None:
    """Output (batch, time, out_width), State a NamedTuple of batch-first tensors whose shapes never change."""
    for dtype in (torch.float32, torch.float64):
        cell = build(make_cell, dtype)
        assert cell.out_width == type(cell).output_width(cell.config, cell.width)
        for batch, time in ((1, 1), (3, 1), (1, 3), (3, 3)):
            start = cell.initial_state(batch, dtype=dtype)
            assert hasattr(start, "_fields"), "a State is a NamedTuple"
            x, _ = values(cell, batch, time, dtype)
            for state in (None, start):
                y, final = cell(x, state)
                assert y.shape == (batch, time, cell.out_width), f"output of shape {tuple(y.shape)}"
                assert y.dtype == dtype, f"output of {y.dtype} from {dtype}"
                assert type(final) is type(start)
                assert finite((y, final))
                for part, first in zip(leaves(final), leaves(start), strict=True):
                    assert part.shape[0] == batch
                    assert part.shape == first.shape, f"state of {tuple(first.shape)} became {tuple(part.shape)}"
                    assert part.dtype == first.dtype


def check_splits(make_cell: MakeCell) -> None:
    """A sequence in two or three pieces gives what the whole gives; a piece that ends among the tokens that come
    together is not gone on from."""
    for dtype in (torch.float32, torch.float64):
        cell = build(make_cell, dtype)
        for x, state, prefix in _windows(cell, TIME, dtype):
            whole = cell(x, state)
            cuts = [(prefix + cut, TIME - cut) for cut in range(0 if prefix else 1, TIME)]
            for cut in [*cuts, (prefix + 2, 1, 4), (prefix + 3, 3, 1)]:
                carried, outputs = state, []
                for piece in x.split(cut, 1):
                    y, carried = cell(piece, carried)
                    outputs.append(y)
                _same((torch.cat(outputs, 1), carried), whole, f"pieces {cut}")
            for cut in range(1, prefix):
                _, carried = cell(x[:, :cut], state)
                try:
                    cell(x[:, cut:], carried)
                except UsageError:
                    continue
                raise AssertionError(f"the cell goes on after {cut} of its first {prefix} tokens")


def check_stepwise(make_cell: MakeCell) -> None:
    """One step at a time gives what the whole gives, with gradients recorded and without."""
    cell = build(make_cell)
    for x, state, prefix in _windows(cell, TIME):
        whole = cell(x, state)
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                carried, outputs = state, []
                for piece in x.split([prefix or 1, *[1] * (x.shape[1] - (prefix or 1))], 1):
                    y, carried = cell(piece, carried)
                    outputs.append(y)
            _same((torch.cat(outputs, 1), carried), whole, "step by step")


def check_resets_separate_documents(make_cell: MakeCell) -> None:
    """Documents packed into one row, with a reset at the first token of each, come out as if each ran alone."""
    cell = build(make_cell)
    x, state = values(cell, 3, TIME)
    starts = ((0, 3), (0, 1, 5), (0,))
    reset = torch.zeros(3, TIME, dtype=torch.bool)
    for row, begins in enumerate(starts):
        reset[row, list(begins)] = True
    y, final = cell(x, state, reset)
    for row, begins in enumerate(starts):
        last = None
        for begin, end in zip(begins, (*begins[1:], TIME), strict=True):
            alone, last = cell(x[row : row + 1, begin:end])
            assert_close(y[row : row + 1, begin:end], alone, f"document at {begin} of row {row}")
        for part, other in zip(leaves(final), leaves(last), strict=True):
            assert_close(part[row : row + 1], other, f"final state of row {row}")


def check_reset_restores_start(make_cell: MakeCell) -> None:
    """A reset puts back the row's initial state, whatever that is, before the token; other rows go on."""
    cell = build(make_cell)
    x, state = values(cell, BATCH, 1)
    for row in range(BATCH):
        reset = torch.zeros(BATCH, 1, dtype=torch.bool)
        reset[row] = True
        start = cell.initial_state(BATCH, dtype=x.dtype)

        def pick(a: Tensor, b: Tensor, row: int = row) -> Tensor:
            return torch.where((torch.arange(BATCH) == row).view(-1, *[1] * (a.dim() - 1)), b, a)

        _same(cell(x, state, reset), cell(x, map_tree(pick, state, start)), f"reset of row {row}")


def check_no_future(make_cell: MakeCell) -> None:
    """No output depends on a later input, but for the tokens that come together: their outputs depend on all of them.
    Every output depends on its own input."""
    cell = build(make_cell)
    for x, state, prefix in _windows(cell, 5, start=True):
        x.requires_grad_()
        y, _ = cell(x, state)
        for t in range(x.shape[1]):
            (grad,) = torch.autograd.grad(y[:, t].square().sum(), x, retain_graph=True)
            assert float(grad[:, max(t + 1, prefix) :].abs().sum()) == 0, f"output {t} sees later inputs"
            assert float(grad[:, t].abs().sum()) > 0, f"output {t} does not see its own input"
            for other in range(t + 1, prefix):
                seen = float(grad[:, other].abs().sum()) > 0
                assert seen, f"output {t} does not see input {other}, so that it is causal before {prefix}"


def check_rows_independent(make_cell: MakeCell) -> None:
    """Each row of a batch is computed as if it were alone."""
    cell = build(make_cell)
    x, state = values(cell, 3, 4)
    reset = resets(3, 4)
    y, final = cell(x, state, reset)
    for row in range(3):
        part = slice(row, row + 1)
        alone = cell(x[part], map_tree(lambda s, part=part: s[part], state), reset[part])
        _same((y[part], map_tree(lambda s, part=part: s[part], final)), alone, f"row {row}")


def check_pure(make_cell: MakeCell) -> None:
    """Equal calls give equal results, arguments stay as they were, and nothing is kept on the module."""
    cell = build(make_cell)
    x, state = values(cell, BATCH, 3)
    reset = resets(BATCH, 3)
    copies = [part.clone() for part in leaves((x, state, reset))]
    kept = {name: value.clone() for name, value in cell.state_dict().items()}
    fields = set(vars(cell))
    with torch.no_grad():
        first = cell(x, state, reset)
        second = cell(x, state, reset)
    assert all(torch.equal(a, b) for a, b in zip(leaves(first), leaves(second), strict=True)), "two calls differ"
    assert all(torch.equal(a, b) for a, b in zip(leaves((x, state, reset)), copies, strict=True)), "argument changed"
    assert set(vars(cell)) == fields, "a call left something on the module"
    assert all(torch.equal(value, kept[name]) for name, value in cell.state_dict().items()), "a call changed a tensor"
