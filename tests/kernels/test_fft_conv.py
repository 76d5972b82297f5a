"""fft_conv: the direct sum is the definition, and the transforms give it, gradients too, at odd lengths."""

import pytest
import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.kernels.dispatch import choices, forget_choices
from unrolled.kernels.fft_conv import BACKENDS, fft_conv
from unrolled.kernels.fft_conv.spectral import good_length


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outcome(backend: str, u: Tensor, kernel: Tensor) -> list[Tensor]:
    u, kernel = u.detach().requires_grad_(), kernel.detach().requires_grad_()
    y = fft_conv(u, kernel, backend)
    return [y, *torch.autograd.grad((y * draw(*y.shape, seed=9)).sum(), [u, kernel])]


@pytest.mark.parametrize("time", [1, 2, 3, 17, 70])
@pytest.mark.parametrize("taps", [1, 2, 17, 100])
@pytest.mark.parametrize("backend", ["fft", "shifted"])
def test_backends_agree(backend: str, time: int, taps: int) -> None:
    u, kernel = draw(3, time, 5), draw(5, taps, seed=1)
    for found, wanted in zip(outcome(backend, u, kernel), outcome("reference", u, kernel), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)


def test_short_windows_are_products_and_long_ones_transforms() -> None:
    forget_choices()
    fft_conv(draw(1, 8, 2), draw(2, 8), subject="short")
    fft_conv(draw(1, 9, 2), draw(2, 9), subject="long")
    assert choices() == {"fft_conv short": "shifted", "fft_conv long": "fft"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_the_matrix_of_shifted_taps(backend: str) -> None:
    u, kernel = draw(2, 6, 3), draw(3, 4, seed=1)
    matrix = torch.zeros(3, 6, 6, dtype=torch.float64)
    for t in range(6):
        for s in range(6):
            if 0 <= t - s < 4:
                matrix[:, t, s] = kernel[:, t - s]
    expected = torch.einsum("wts,bsw->btw", matrix, u)
    torch.testing.assert_close(fft_conv(u, kernel, backend), expected, rtol=0, atol=1e-12)


def test_only_the_wanted_gradients_and_finite_differences() -> None:
    u, kernel = draw(2, 5, 3), draw(3, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(fft_conv, [u.clone().requires_grad_(), kernel])
    (grad,) = torch.autograd.grad(fft_conv(u, kernel).sum(), kernel)
    torch.testing.assert_close(grad, u.cumsum(1).sum(0).flip(0).t(), rtol=0, atol=1e-12)


def test_narrow_types_are_computed_in_float32() -> None:
    u = torch.full((1, 300, 2), 0.0078125, dtype=torch.bfloat16)
    y = fft_conv(u, torch.ones(2, 300, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    assert float(y[0, -1, 0]) == pytest.approx(300 * 0.0078125, rel=0.01)


@pytest.mark.parametrize("least", [1, 2, 7, 139, 140, 511, 4097])
def test_good_lengths(least: int) -> None:
    length = good_length(least)
    assert max(least, 2) <= length <= 1.2 * least + 2
    for prime in (2, 3, 5):
        while length % prime == 0:
            length //= prime
    assert length == 1


@pytest.mark.parametrize("kernel", [draw(4, 3), draw(3), draw(3, 0)])
def test_what_does_not_fit_is_refused(kernel: Tensor) -> None:
    with pytest.raises(UsageError, match=r"does not suit width 3; give \(width, L\)"):
        fft_conv(draw(2, 5, 3), kernel)
