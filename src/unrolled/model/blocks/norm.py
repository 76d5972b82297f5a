"""Normalisation between the cells."""

from typing import Literal

from torch import Tensor, nn

from unrolled.kernels.dispatch import Compute
from unrolled.kernels.rms_norm import rms_norm

__all__ = ["NormKind", "RMSNorm", "make_norm"]

NormKind = Literal["layer", "rms"]
_EPSILON, _LAYER_EPSILON = 1e-6, 1e-5


class RMSNorm(nn.RMSNorm):
    """As torch's, by the operation ``rms_norm``."""

    compute = Compute()

    def forward(self, x: Tensor) -> Tensor:
        """x / sqrt(mean(x^2) + epsilon) * weight."""
        return rms_norm(x, self.weight, self.eps or _EPSILON, self.compute.wish("rms_norm"))


def make_norm(kind: str, width: int, epsilon: float | None = None, bias: bool = True) -> nn.Module:
    """Layer norm, or the norm by root mean square. epsilon: absent, 1e-5 for a layer norm and 1e-6 for the other.
    bias: of a layer norm."""
    if kind == "layer":
        return nn.LayerNorm(width, eps=epsilon or _LAYER_EPSILON, bias=bias)
    return RMSNorm(width, eps=epsilon or _EPSILON)
