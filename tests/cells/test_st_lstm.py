"""The spatiotemporal LSTM beside a loop over its equations."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.cells.conv.st_lstm import STLSTM, STLSTMConfig
from unrolled.core.errors import UsageError


def _normed(y: Tensor, gains: Tensor | None) -> Tensor:
    if gains is None:
        return y
    mean = y.mean((1, 2, 3), keepdim=True)
    variance = (y - mean).square().mean((1, 2, 3), keepdim=True)
    return (y - mean) / (variance + 1e-5).sqrt() * gains[0] + gains[1]


@pytest.mark.parametrize("norm", [False, True])
def test_it_is_its_equations(norm: bool) -> None:
    config = STLSTMConfig(grid=(3, 4), layers=3, kernel=3, norm=norm, forget_bias=0.7)
    cell = STLSTM(2 * 12, 5 * 12, config).double()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_(0, 0.4)
    x, handed = wave(2, 4, 24), {}
    y, state = cell(x, handed=handed)
    s = torch.sigmoid
    h = [torch.zeros(2, 5, 3, 4).double() for _ in range(3)]
    c, m = [one.clone() for one in h], h[0].clone()
    gains = list(cell.gains) if cell.gains is not None else [None] * 12
    for t in range(4):
        below, cosines = x[:, t].view(2, 2, 3, 4), []
        for k in range(3):
            of_x = _normed(conv2d(below, cell.weight_x[k], padding=1), gains[4 * k]).split(5, 1)
            of_h = _normed(conv2d(h[k], cell.weight_h[k], padding=1), gains[4 * k + 1]).split(5, 1)
            of_m = _normed(conv2d(m, cell.weight_m[k], padding=1), gains[4 * k + 2]).split(5, 1)
            new_c = s(of_x[0] + of_h[0]) * torch.tanh(of_x[2] + of_h[2])
            c[k] = s(of_x[1] + of_h[1] + 0.7) * c[k] + new_c
            new_m = s(of_x[3] + of_m[0]) * torch.tanh(of_x[5] + of_m[2])
            m = s(of_x[4] + of_m[1] + 0.7) * m + new_m
            both = torch.cat([c[k], m], 1)
            o = s(of_x[6] + of_h[3] + _normed(conv2d(both, cell.weight_o[k], padding=1), gains[4 * k + 3]))
            h[k] = o * torch.tanh(conv2d(both, cell.mixed[k]))
            below = h[k]
            a, b = (conv2d(one, cell.apart).flatten(2) for one in (new_c, new_m))
            cosines.append(((a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))).abs().mean(1))
        assert_close(y[:, t], h[2].flatten(1), f"frame {t}")
        assert_close(handed["cost"][:, t, 0], torch.stack(cosines).mean(0), f"cost of frame {t}")
    assert_close(state.maps_m, m, "the memory that climbs")


def test_filters_with_an_even_side_are_refused() -> None:
    with pytest.raises(UsageError, match="the side of a filter is odd"):
        STLSTM(12, 12, STLSTMConfig(grid=(3, 4), kernel=2))
