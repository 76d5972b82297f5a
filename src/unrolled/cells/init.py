"""Initialisation schemes shared by the cells."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["Init", "fill_matrix", "fill_vectors", "truncated_deviation", "truncated_normal"]

Init = Literal["uniform", "orthogonal", "orthogonal_all", "truncated_normal", "variance_scaling"]
"""uniform: U(-1/sqrt(width), 1/sqrt(width)), torch's default. orthogonal: each gate's block on its own (Saxe et
al. 2014), matrices from the input uniform by their fan-in; orthogonal_all: these orthogonal too. truncated_normal:
standard deviation sqrt(1/fan_in), then redrawn beyond two of them, which leaves a variance of 0.77/fan_in.
variance_scaling: the same with sqrt(1.3/fan_in), so that the variance after truncation is 1/fan_in, as deepmind/lamb
draws (Mogrifier LSTM)."""

_TRUNCATED = {"truncated_normal": 1.0, "variance_scaling": 1.3}


def truncated_normal(tensor: Tensor, std: float) -> None:
    """Normal, redrawn beyond two standard deviations (so the variance is about 0.77 std squared)."""
    nn.init.trunc_normal_(tensor, std=std, a=-2 * std, b=2 * std)


def truncated_deviation(init: Init, fan_in: int) -> float | None:
    """The standard deviation before truncation of the two truncated schemes, None for the others."""
    return math.sqrt(_TRUNCATED[init]) / math.sqrt(fan_in) if init in _TRUNCATED else None


@torch.no_grad()
def fill_matrix(weight: Tensor, init: Init, width: int, blocks: int = 1, recurrent: bool = True) -> None:
    """Initialise a matrix of ``blocks`` gates stacked along its first dimension.

    Args:
        weight: (blocks * out, in).
        width: the width of the cell, the scale of ``uniform``.
        recurrent: whether the matrix multiplies a state; ``orthogonal`` is for those.
    """
    if weight.is_meta:  # counting parameters only
        return
    fan_in = weight.shape[1]
    deviation = truncated_deviation(init, fan_in)
    for block in weight.chunk(blocks):
        if deviation is not None:
            truncated_normal(block, deviation)
        elif init == "orthogonal_all" or (init == "orthogonal" and recurrent):
            nn.init.orthogonal_(block)
        else:
            bound = 1 / math.sqrt(width if init == "uniform" else fan_in)
            nn.init.uniform_(block, -bound, bound)


@torch.no_grad()
def fill_vectors(vectors: Iterable[Tensor], value: float = 0.0) -> None:
    """Fill biases or gains with a constant."""
    for vector in vectors:
        vector.fill_(value)
