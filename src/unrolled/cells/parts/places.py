"""Positions of tokens: rotations of queries and keys, slopes over the distance, vectors of absolute places."""

import torch
from torch import Tensor

__all__ = ["angles", "rotate", "sinusoid", "slopes"]


def angles(places: Tensor, channels: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines (..., channels / 2) of rotary angles, p base^(-2i / channels) (Su et al. 2021), for places p
    (...), in the type of these: float64 keeps large places exact."""
    powers = torch.arange(0, channels, 2, device=places.device, dtype=places.dtype) / channels
    angle = places.unsqueeze(-1) * base**-powers
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The first channels of x (..., n) turned, channel i with channel i + m where m = ``cos.shape[-1]``; channels from
    2m on stay as they are."""
    m = cos.shape[-1]
    a, b, rest = x.split([m, m, x.shape[-1] - 2 * m], -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


def slopes(heads: int) -> Tensor:
    """By how much each head's scores fall with every step of distance (Press et al. 2022): 2^(-8h / heads)."""
    return 2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads)


def sinusoid(places: Tensor, width: int) -> Tensor:
    """(..., width): sin and cos of p 10000^(-2i / width) side by side (Vaswani et al. 2017), for places p (...)."""
    cos, sin = angles(places, width + width % 2, 10000.0)
    return torch.stack([sin, cos], -1).flatten(-2)[..., :width]
