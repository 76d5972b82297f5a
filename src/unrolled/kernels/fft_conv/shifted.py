"""Windows of a few steps as products with the matrix of shifted taps: no rounding error from later inputs."""

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["conv", "pays"]

# steps; beyond, transforms are faster (256 channels, batch 8, one thread of an AMD EPYC)
_SHORT = 8


def pays(u: Tensor, kernel: Tensor) -> bool:
    """Whether the window has few steps."""
    return u.shape[1] <= _SHORT


def conv(u: Tensor, kernel: Tensor) -> Tensor:
    """See :func:`unrolled.kernels.fft_conv.reference.conv`."""
    time = u.shape[1]
    # row t holds the taps of inputs time-1 ... 0
    matrix = pad(kernel, (time - 1, time - kernel.shape[1])).unfold(1, time, 1)
    return torch.bmm(matrix, u.flip(1).permute(2, 1, 0)).permute(2, 1, 0)
