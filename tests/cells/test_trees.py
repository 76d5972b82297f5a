"""The LSTMs of trees beside torch's LSTM, and what their options do."""

import pytest
import torch
from torch import nn

from conformance.material import wave
from conformance.tolerance import assert_close
from conformance.trees.checks import made
from conformance.trees.forests import chain, left_chain, tree
from unrolled.cells import TREES


def _torch_lstm(in_width: int, width: int, order: list[torch.Tensor], into: list[torch.Tensor], bias: list) -> nn.LSTM:
    lstm = nn.LSTM(in_width, width, batch_first=True).double()
    with torch.no_grad():
        named = dict(lstm.named_parameters())
        named["weight_ih_l0"].copy_(torch.cat(into))
        named["weight_hh_l0"].copy_(torch.cat(order))
        named["bias_ih_l0"].copy_(torch.cat(bias))
        named["bias_hh_l0"].zero_()
    return lstm


def test_a_child_sum_with_one_child_is_an_lstm() -> None:
    cls = TREES["child_sum_tree_lstm"]
    cell, x = made(cls, cls.Config()), wave(7, 5)
    i, u, o = cell.weight_h.chunk(3)
    lstm = _torch_lstm(5, 4, [i, cell.weight_f, u, o], list(cell.weight_x.chunk(4)), list(cell.bias.chunk(4)))
    state, (y, (_, c)) = cell(x, chain(7)), lstm(x[None])
    assert_close(state.h, y[0], "h")
    assert_close(state.c[-1:], c[0], "c")


def test_an_s_lstm_on_a_left_chain_is_an_lstm() -> None:
    cls, n, leaves = TREES["s_lstm"], 4, 8
    cell = made(cls, cls.Config(), n, n)
    with torch.no_grad():
        cell.weight_c.zero_()
        cell.weight_o.zero_()
    parents = left_chain(leaves)
    x = torch.zeros(len(parents), n, dtype=torch.float64)
    words = wave(leaves, n)
    x[[0, *range(1, len(parents), 2)]] = words
    i, f, _, u, o = (block.chunk(2, -1) for block in cell.weight_h.chunk(5))
    bias = cell.bias.chunk(5)
    lstm = _torch_lstm(
        n, n, [p[0] for p in (i, f, u, o)], [p[1] for p in (i, f, u, o)], [bias[k] for k in (0, 1, 3, 4)]
    )
    state = cell(x, parents)
    start = words[0][None, None]
    y, (_, c) = lstm(words[None, 1:], (start, torch.zeros_like(start)))
    assert_close(state.h[2::2], y[0], "h")
    assert_close(state.c[-1:], c[0], "c")


def test_peepholes_are_read() -> None:
    cls = TREES["s_lstm"]
    parents = tree(4, 6, 2)
    for name in ("weight_c", "weight_o"):
        cell, x = made(cls, cls.Config()), wave(len(parents), 5)
        before = cell(x, parents).h[-1]
        with torch.no_grad():
            getattr(cell, name).zero_()
        assert (cell(x, parents).h[-1] - before).abs().max() > 1e-3


def test_children_have_an_order_in_binary_cells_alone() -> None:
    parents, swapped = tree(4, 2, 2), [1, 0, 2]
    for name in TREES:
        cls = TREES[name]
        cell, x = made(cls, cls.Config()), wave(3, 5)
        same = torch.allclose(cell(x, parents).h[-1], cell(x[swapped], parents).h[-1])
        assert same == (name == "child_sum_tree_lstm")


@pytest.mark.parametrize("name", list(TREES))
def test_the_forget_bias(name: str) -> None:
    cls = TREES[name]
    one, zero = (cls(5, 4, cls.Config(forget_bias=value)).bias for value in (1.0, 0.0))
    gates = (1,) if name == "child_sum_tree_lstm" else (1, 2)
    wanted = torch.zeros(len(one) // 4, 4)
    wanted[list(gates)] = 1.0
    assert torch.equal(one.view(-1, 4), wanted)
    assert not zero.any()
