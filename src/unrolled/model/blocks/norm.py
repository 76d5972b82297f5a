"""Normalisation between the cells."""

from typing import Literal

from torch import Tensor, nn

from unrolled.kernels.dispatch import Compute
from unrolled.kernels.rms_norm import rms_norm

__all__ = ["NormKind", "RMSNorm", "make_norm"]

NormKind = Literal["layer", "rms"]
_EPSILON = 1e-6


class RMSNorm(nn.RMSNorm):
    """As torch's, by the operation ``rms_norm``."""

    compute = Compute()

    def forward(self, x: Tensor) -> Tensor:
        """x / sqrt(mean(x^2) + epsilon) * weight."""
        return rms_norm(x, self.weight, _EPSILON, self.compute.wish("rms_norm"))


def make_norm(kind: str, width: int) -> nn.Module:
    """Layer norm, or the norm by root mean square."""
    return nn.LayerNorm(width) if kind == "layer" else RMSNorm(width, eps=_EPSILON)
