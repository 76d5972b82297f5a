"""Attention by bound vectors."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cosine_similarity

from unrolled.cells.encoders.block import Activation, BlockConfig, BlockEncoder

__all__ = ["Hrrformer", "HrrformerConfig", "Inverse", "bind", "unbind", "unit_modulus"]

Inverse = Literal["approximate", "exact"]
_LEAST = 1e-6
"""Numbers of a spectrum below it are divided by as if they were as large."""


class HrrformerConfig(BlockConfig):
    """Options of a layer of the Hrrformer."""

    name: Literal["hrrformer"] = "hrrformer"
    norm_first: bool = Field(default=True, description="whole layer: norms before mixing and MLP; else after each sum")
    activation: Activation = Field(
        default="gelu_tanh", description="whole layer: of the MLP; gelu_tanh is gelu by tanh"
    )
    factor: float = Field(
        default=2.0, gt=0, le=1024, description="whole layer: hidden width of the MLP, as a multiple of the width"
    )
    inverse: Inverse = Field(
        default="approximate",
        description="of a query, which takes a value out of the sum: approximate, its numbers in reverse order "
        "(published), or exact, which divides by its spectrum",
    )
    unit_keys: bool = Field(
        default=False,
        description="whether keys and queries are brought to spectra of modulus 1, for which both inverses are one",
    )


class Hrrformer(BlockEncoder):
    r"""A layer of the Hrrformer (Alam et al. 2023, arXiv:2305.19534): keys bound to values, summed over the row in one
    vector for each head.

    .. math::
        b &= \sum_t k_t \circledast v_t, \quad \hat{v}_t = q_t^{-1} \circledast b, \quad
        a_t = \cos(v_t, \hat{v}_t) \\
        w &= \mathrm{softmax}_t(a), \quad y_t = w_t v_t

    with the circular convolution of :func:`bind`, then an output matrix. It takes O(T n log n) for heads of n channels,
    of any n. Matrices of queries, keys, values and outputs have no biases, the second one of the MLP neither; norms
    with 10^-6, before by default, with gelu by tanh and F = 2N, as the published code has it for texts
    (``norm_first = false`` and ``factor = 0.5`` for images). The published code uses the approximate inverse, and keys
    as they are, whose spectra are not of modulus 1.

    Differences from the published code: bindings at padding are not summed, where it sums them, so that padding moves
    its outputs; a cosine with a vector of length 0 is 0.

    With ``block = false`` the mixing of tokens alone, for a residual stack.

    Parameters 4N²; 2NF + F + 4N of MLP and norms; NI where I is not N; of learned positions PN.
    """

    Config = HrrformerConfig
    EXAMPLES = (
        HrrformerConfig(heads=2, places=64),
        HrrformerConfig(heads=1, inverse="exact", norm_first=False, activation="gelu", positions="sinusoid"),
        HrrformerConfig(heads=2, unit_keys=True, block=False, positions="none"),
        HrrformerConfig(heads=1, unit_keys=True, factor=0.5, activation="relu", places=4096),
    )
    EQUATION = "y = softmax_t(cos(v, unbind(sum bind(k, v), q))) v"
    biases = False
    down_biases = False
    epsilon = 1e-6

    def mixed(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """See :meth:`BlockEncoder.mixed`."""
        if self.config.unit_keys:
            q, k = unit_modulus(q), unit_modulus(k)
        bound = bind(k, v)
        if mask is not None:
            bound = bound.masked_fill(~mask[:, :, None, None], 0)
        found = unbind(bound.sum(1, keepdim=True), q, self.config.inverse)
        a = cosine_similarity(v, found, -1)
        if mask is not None:
            a = a.masked_fill(~mask.unsqueeze(-1), -torch.inf)
        return a.softmax(1).unsqueeze(-1) * v


def bind(x: Tensor, y: Tensor) -> Tensor:
    """The circular convolution of vectors (..., n): z_i = sum over j of x_j y_((i - j) mod n) (Plate 1995)."""
    n = x.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(y), n)


def unbind(z: Tensor, key: Tensor, inverse: Inverse) -> Tensor:
    """What was bound to ``key`` in z, (..., n): z bound to the key's inverse.

    The approximate inverse has the conjugate spectrum. The exact one has the reciprocal; numbers of the spectrum below
    10^-6 are divided by as if they were as large.
    """
    spectrum = torch.fft.rfft(key)
    found = torch.fft.rfft(z) * spectrum.conj()
    if inverse == "exact":
        found = found / _power(spectrum).clamp_min(_LEAST**2)
    return torch.fft.irfft(found, z.shape[-1])


def unit_modulus(x: Tensor) -> Tensor:
    """x (..., n) with its spectrum divided by its modulus (Ganesan et al. 2021); where that is below 10^-6, by so
    much."""
    spectrum = torch.fft.rfft(x)
    return torch.fft.irfft(spectrum / _power(spectrum).clamp_min(_LEAST**2).sqrt(), x.shape[-1])


def _power(spectrum: Tensor) -> Tensor:
    """The squared modulus."""
    return spectrum.real.square() + spectrum.imag.square()
