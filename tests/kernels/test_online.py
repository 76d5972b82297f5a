"""Online sums of long filters: each is the plain sum, also without an end, and costs what it should."""

import math

import pytest
import torch
from torch import Tensor

from unrolled.kernels.fft_conv import fft_conv
from unrolled.kernels.fft_conv.online import ONLINE, Filter, Online, epoch_of, period_of


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def naive(u: Tensor, taps: Tensor) -> Tensor:
    """y(t) = sum over l of K(l) u(t - l), as it is written."""
    y = torch.zeros_like(u)
    for t in range(u.shape[1]):
        for lag in range(min(taps.shape[1], t + 1)):
            y[:, t] += taps[:, lag] * u[:, t - lag]
    return y


def steps(online: Online, u: Tensor) -> Tensor:
    return torch.stack([online.step(one) for one in u.unbind(1)], 1)


@pytest.mark.parametrize("name", ONLINE)
@pytest.mark.parametrize("taps", [1, 2, 3, 16, 17, 31, 33, 70])
def test_steps_are_the_plain_sum_beyond_the_filter_too(name: str, taps: int) -> None:
    kernel, u = draw(3, taps, seed=1), draw(2, 3 * taps + 7, 3)
    torch.testing.assert_close(steps(ONLINE[name](kernel, 2), u), naive(u, kernel), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ONLINE)
def test_float32_at_length_four_hundred_and_odd(name: str) -> None:
    kernel, u = draw(4, 401, seed=1) * 401**-0.5, draw(1, 997, 4)
    expected = fft_conv(u, kernel)
    found = steps(ONLINE[name](kernel.float()), u.float())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(("n", "count"), [(1, 1), (3, 5), (16, 9), (17, 4), (40, 40), (5, 33), (20, 50), (4, 100)])
def test_what_a_block_adds_ahead_and_its_gradients(n: int, count: int, plain: bool) -> None:
    kernel, u = draw(3, 30, seed=1).requires_grad_(), draw(2, n, 3).requires_grad_()
    whole = fft_conv(torch.cat([u, u.new_zeros(2, count, 3)], 1), kernel, "reference")[:, n:]
    made = Filter(kernel, plain).ahead(u, count)
    torch.testing.assert_close(made, whole, rtol=0, atol=1e-11)
    seeds = draw(*whole.shape, seed=3)
    for one, other in zip(
        torch.autograd.grad(made, [u, kernel], seeds), torch.autograd.grad(whole, [u, kernel], seeds), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def counted(name: str, taps: int) -> Online:
    online = ONLINE[name](draw(1, taps))
    for one in draw(taps, 1, 1).unbind(0):
        online.step(one)
    return online


def test_counts_of_multiply_adds() -> None:
    sizes = (256, 1024, 4096)
    found = {name: [counted(name, taps) for taps in sizes] for name in ONLINE}
    thousands = {name: [round(one.multiply_adds / 1000) for one in made] for name, made in found.items()}
    assert thousands["direct"] == [33, 525, 8391]
    assert thousands["quasilinear"] == [19, 130, 770]
    assert thousands["epoched"] == [26, 230, 1755]
    growth = {name: made[2].multiply_adds / made[1].multiply_adds for name, made in found.items()}
    assert growth["quasilinear"] <= 6.5
    assert growth["epoched"] <= 8
    assert growth["direct"] == pytest.approx(16, rel=0.01)
    # the same blocks by three complex transforms each, of four times their length, 2.5 n log2 n multiply-adds
    for one, thousand in zip(found["quasilinear"], (97, 709, 4372), strict=True):
        sums = sum(
            times * (7.5 * 4 * n * math.log2(4 * n) if n > 16 else n * count)
            for (n, count), times in one.blocks.items()
        )
        assert (sums + 8.5 * one.length) / 1000 == pytest.approx(thousand, rel=0.01)


def test_blocks_double() -> None:
    online = counted("quasilinear", 128)
    assert dict(online.blocks) == {(16, 16): 4, (32, 32): 2, (64, 64): 1}
    assert [period_of(taps) for taps in (1, 2, 3, 16, 17)] == [1, 2, 4, 16, 32]
    assert [epoch_of(taps) for taps in (1, 2, 1024, 16384)] == [1, 2, 102, 479]
