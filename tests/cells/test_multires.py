"""MultiresConv against its explicit kernel, a plain loop over levels, and Haar's transform by PyWavelets."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, glu, layer_norm, linear

from unrolled.cells.conv.base import ConvState
from unrolled.cells.conv.multires import MultiRes, MultiResConfig, Tree, depth_of, wavelet
from unrolled.cells.mixer import Given
from unrolled.core.errors import UsageError
from unrolled.kernels.fft_conv import fft_conv

B, D = 2, 6
# made once by pywt 1.9.0: swt(x, "haar", level=3), levels from the finest
HAAR = json.loads((Path(__file__).parents[1] / "golden" / "haar.json").read_text())


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(**config: Any) -> MultiRes:
    """With weights three times those of the start."""
    torch.manual_seed(0)
    cell = MultiRes(D, D, MultiResConfig(**config)).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(3)
    return cell


def levels(cell: MultiRes, x: Tensor, state: ConvState | None = None) -> tuple[Tensor, ConvState]:
    start = cell.initial_state(len(x), dtype=x.dtype) if state is None else state
    return cell.levels(x, start, Given(None, {}, None, {}))


def by_loop(cell: MultiRes, x: Tensor) -> Tensor:
    """The sums as they are written, one number after another."""
    k, time = cell.config.kernel, x.shape[1]
    low, total = x, cell.mixing[:, -1] * x
    for j in range(cell.depth):
        high, lower = torch.zeros_like(x), torch.zeros_like(x)
        for t in range(time):
            for tap in range(k):
                at = t - (k - 1 - tap) * 2**j
                if at >= 0:
                    high[:, t] += cell.high[:, tap] * low[:, at]
                    lower[:, t] += cell.low[:, tap] * low[:, at]
        total, low = total + cell.mixing[:, cell.depth - j] * high, lower
    return total + cell.mixing[:, 0] * low


@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_levels_are_the_loop_and_the_explicit_kernel(kernel: int) -> None:
    """T 40; the kernel is what comes of a unit impulse, and fft_conv with it makes the window."""
    cell, x = make(kernel=kernel, receptive_field=40), draw(B, 40, D)
    with torch.no_grad():
        found, _ = levels(cell, x)
        torch.testing.assert_close(found, by_loop(cell, x), rtol=0, atol=1e-11)
        impulse = torch.zeros(1, 40, D).double()
        impulse[:, 0] = 1
        kernels = levels(cell, impulse)[0][0].t()
        scale = float(found.abs().max())
        assert float((fft_conv(x, kernels) - found).abs().max()) / scale < 1e-12
        direct = fft_conv(x, kernels, "reference")
        assert float((direct - found).abs().max()) / scale < 1e-12


@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_the_carried_levels_are_the_window(kernel: int) -> None:
    cell, x = make(kernel=kernel, receptive_field=40), draw(B, 37, D)
    with torch.no_grad():
        whole, last = cell(x)
        state, outputs = None, []
        for piece in x.split([13, *[1] * 7, 17], 1):
            y, state = cell(piece, state)
            outputs.append(y)
        torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=0, atol=1e-10)
        torch.testing.assert_close(state, last, rtol=0, atol=1e-10)


def test_a_stationary_haar_transform_is_that_of_pywavelets() -> None:
    """Periodic there: here the window is read twice, and the second reading follows the first. Level j + 1 is theirs
    after rolling by 2^(j+1) - 1."""
    x = torch.tensor(HAAR["x"], dtype=torch.float64).view(1, -1, 1)
    low, high = (taps.unsqueeze(0) for taps in wavelet(2))
    tree, caches = Tree(low, high, 3), Tree.caches(1, 2, 3)
    details, coarse, state = tree(x, caches.split(caches.initial(1, dtype=x.dtype)), None)
    details, coarse, _ = tree(x, caches.split(state), None)
    assert len(HAAR["levels"]) == 3
    for j, (found, theirs) in enumerate(zip(details, HAAR["levels"], strict=True)):
        expected = torch.tensor(theirs["high"], dtype=torch.float64).roll(2 ** (j + 1) - 1)
        torch.testing.assert_close(found[0, :, 0], expected, rtol=0, atol=1e-10)
    expected = torch.tensor(HAAR["levels"][-1]["low"], dtype=torch.float64).roll(7)
    torch.testing.assert_close(coarse[0, :, 0], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("taps", [2, 4])
def test_wavelets_are_orthonormal_and_their_high_pass_has_no_mean(taps: int) -> None:
    low, high = wavelet(taps)
    assert float(low.sum()) == pytest.approx(2**0.5)
    assert abs(float(high.sum())) < 1e-12
    for one, other, product in ((low, low, 1), (high, high, 1), (low, high, 0)):
        assert float(one @ other) == pytest.approx(product, abs=1e-12)
    assert float(low[2:] @ low[:-2]) == pytest.approx(0, abs=1e-12)


def test_the_block_around_the_levels() -> None:
    cell, x = make(kernel=2, receptive_field=12), draw(B, 9, D)
    y = glu(linear(gelu(levels(cell, x)[0]), cell.weight, cell.bias), -1)
    expected = layer_norm(x + linear(y, cell.out, cell.out_bias), (D,), cell.norm, cell.norm_bias)
    torch.testing.assert_close(cell(x)[0], expected, rtol=0, atol=1e-12)
    bare = make(kernel=2, receptive_field=12, residual=False)
    torch.testing.assert_close(bare(x)[0], linear(y, cell.out, cell.out_bias), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kernel", "field"), [(2, 2), (2, 64), (2, 65), (3, 40), (4, 8), (16, 2)])
def test_the_receptive_field_gives_the_depth(kernel: int, field: int) -> None:
    depth = depth_of(kernel, field)
    assert 1 + (kernel - 1) * (2**depth - 1) >= field > 1 + (kernel - 1) * (2 ** (depth - 1) - 1)
    cell = make(kernel=kernel, receptive_field=field)
    assert cell.depth == depth
    assert cell.state_size() == D * (kernel - 1) * (2**depth - 1)
    assert depth_of(2, 64) == 6


def test_starts() -> None:
    torch.manual_seed(0)
    cell = MultiRes(200, 8, MultiResConfig(kernel=4, receptive_field=64, skip="unit"))
    bound = (cell.depth + 2) ** -0.5
    for part, limit in ((cell.low, 0.5), (cell.high, 0.5), (cell.mixing[:, :-1], bound), (cell.mixing[:, -1], 1.0)):
        assert 0.9 * limit < float(part.detach().abs().max()) <= limit
    shared = MultiRes(200, 8, MultiResConfig(kernel=4, receptive_field=64))
    assert float(shared.mixing[:, -1].detach().abs().max()) <= bound
    haar = MultiRes(3, 8, MultiResConfig(init="wavelet"))
    torch.testing.assert_close(haar.low.detach(), torch.full((3, 2), math.sqrt(0.5)))
    with pytest.raises(UsageError, match="no wavelet of 3 taps"):
        MultiResConfig(kernel=3, init="wavelet")
