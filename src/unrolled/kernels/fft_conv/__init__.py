"""``fft_conv``: y(t) = sum over l <= t of K(l) u(t - l), channel by channel, with a filter as long as the window.

Backends: ``shifted`` (products with the matrix of shifted taps, for windows of a few steps), ``fft`` (real Fourier
transforms, O(T log T); rounding errors of an output may come from later inputs) and ``reference`` (the direct sum under
autograd, O(T^2), which defines the operation). It carries nothing and knows no reset; that is for the cell.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.kernels.dispatch import Backend, Operation, Sizes, choose
from unrolled.kernels.fft_conv import reference, shifted, spectral

__all__ = ["BACKENDS", "OPERATION", "fft_conv"]

BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("shifted", lambda *_: None, shifted.conv, shifted.pays),
        Backend("fft", lambda *_: None, spectral.conv),
        Backend("reference", lambda *_: None, reference.conv),
    )
}


def fft_conv(u: Tensor, kernel: Tensor, backend: str = "auto", subject: str = "") -> Tensor:
    """Convolve a window with a long filter.

    Args:
        u: (batch, time, width), real. kernel: (width, L), real; of a longer one than the window the first taps act, and
            beyond a shorter one there are zeros.
        backend: ``auto``, ``reference`` or a backend. subject: who asks, for the record of choices.
    Returns:
        y (batch, time, width). Types narrower than float32 are computed in float32.
    Raises:
        UsageError: another width, no tap, or an unknown backend.
    """
    if kernel.dim() != 2 or len(kernel) != u.shape[2] or not kernel.shape[1]:
        raise UsageError(f"a filter {tuple(kernel.shape)} does not suit width {u.shape[2]}; give (width, L), L from 1.")
    kind = torch.promote_types(u.dtype, kernel.dtype)
    work = torch.promote_types(kind, torch.float32)
    args = (u.to(work), kernel[:, : u.shape[1]].to(work))
    return choose("fft_conv", BACKENDS, backend, subject or "convolution", *args).run(*args).to(kind)


def _amount(sizes: Sizes, backward: bool) -> int:
    """Bytes of one pass: read u, write y; then read u and the gradient, write that of u."""
    return (5 if backward else 2) * 4 * sizes.width * sizes.batch * sizes.window


def _inputs(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    return {
        "u": draw("u", sizes.batch, sizes.window, sizes.width),
        "kernel": draw("kernel", sizes.width, sizes.window) * sizes.window**-0.5,
    }


def _call(given: Mapping[str, Tensor], backend: str, precision: str) -> tuple[Tensor, ...]:
    return (fft_conv(given["u"], given["kernel"], backend),)


OPERATION = Operation(
    "fft_conv", "y(t) = sum over l <= t of K(l) u(t - l)", BACKENDS, "bytes", amount=_amount, inputs=_inputs, call=_call
)
