"""The short convolution is torch's own with a left pad, its start too, and its cache carries over."""

import pytest
import torch
from torch import nn

from unrolled.cells import CELLS
from unrolled.cells.parts.short_conv import ShortConv
from unrolled.kernels.dispatch import Compute, choices, forget_choices


def test_it_is_torchs_convolution_and_starts_alike() -> None:
    torch.manual_seed(0)
    part = ShortConv(6, 4, activation="silu").double()
    torch.manual_seed(0)
    conv = nn.Conv1d(6, 6, 4, groups=6, padding=3).double()
    assert part.bias is not None
    assert conv.bias is not None
    for own, its in ((part.weight, conv.weight.squeeze(1)), (part.bias, conv.bias)):
        torch.testing.assert_close(own, its, rtol=0, atol=1e-7)
    x = torch.randn(2, 9, 6).double()
    y, _ = part(x, part.initial(2, dtype=x.dtype))
    expected = nn.functional.silu(conv(x.transpose(1, 2))[..., :9].transpose(1, 2))
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_pieces_are_the_whole_and_parameters_are_counted(bias: bool) -> None:
    part = ShortConv(5, 3, bias).double()
    assert sum(p.numel() for p in part.parameters()) == ShortConv.num_params(5, 3, bias)
    x, reset = torch.randn(2, 7, 5).double(), torch.zeros(2, 7, dtype=torch.bool)
    reset[0, 4] = True
    whole, last = part(x, part.initial(2, dtype=x.dtype), reset)
    first, cache = part(x[:, :3], part.initial(2, dtype=x.dtype), reset[:, :3], wish="inplace")
    second, after = part(x[:, 3:], cache, reset[:, 3:])
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=1e-12)
    assert torch.equal(after, last)
    assert not torch.equal(part(x, part.initial(2, dtype=x.dtype))[0][0], whole[0]), "the reset hides nothing"


@pytest.mark.parametrize("name", ["mamba", "longhorn", "rg_lru", "mamba2", "deltanet", "matrix_lstm", "slstm"])
def test_a_table_of_backends_reaches_the_convolution_of_a_cell(name: str) -> None:
    cls = CELLS[name]
    width = cls.width_multiple(cls.Config()) * 4
    cell = cls(width, width, cls.Config())
    cell.compute = Compute.parse({"backend": {"causal_conv": "reference"}})
    forget_choices()
    cell(torch.zeros(1, 3, width))
    assert choices()[f"causal_conv {name}"] == "reference"
