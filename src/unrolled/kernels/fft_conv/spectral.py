"""Long convolutions as products of real Fourier transforms, padded so that nothing wraps round."""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["conv", "good_length"]


@functools.cache
def good_length(least: int) -> int:
    """The smallest even number from ``least`` whose prime factors are 2, 3 and 5, for fast transforms."""
    length = max(2, least + least % 2)
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 2


class _Conv(torch.autograd.Function):
    """u (batch, width, time), columns of time side by side; kernel (width, L)."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, kernel: Tensor) -> Tensor:
        time, taps = u.shape[2], kernel.shape[1]
        size = good_length(time + taps - 1)
        inputs, factors = torch.fft.rfft(u, size), torch.fft.rfft(kernel, size)
        ctx.save_for_backward(inputs, factors)
        ctx.sizes = size, time, taps
        return torch.fft.irfft(inputs * factors, size)[..., :time]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        inputs, factors = ctx.saved_tensors
        size, time, taps = ctx.sizes
        # the gradient of a convolution is a correlation: conjugate factors
        back = torch.fft.rfft(grad, size)
        grad_u = grad_kernel = None
        if ctx.needs_input_grad[0]:
            grad_u = torch.fft.irfft(back * factors.conj(), size)[..., :time]
        if ctx.needs_input_grad[1]:
            grad_kernel = torch.fft.irfft((back * inputs.conj()).sum(0), size)[..., :taps]
        return grad_u, grad_kernel


def conv(u: Tensor, kernel: Tensor) -> Tensor:
    """See :func:`unrolled.kernels.fft_conv.reference.conv`."""
    y: Tensor = _Conv.apply(u.transpose(1, 2).contiguous(), kernel)  # type: ignore[assignment]
    return y.transpose(1, 2)
