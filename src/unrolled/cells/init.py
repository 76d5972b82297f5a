"""Initialisation schemes shared by the cells."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["Init", "fill_matrix", "truncated_normal"]

Init = Literal["uniform", "orthogonal", "truncated_normal"]
"""uniform: U(-1/sqrt(width), 1/sqrt(width)), torch's default. orthogonal: each gate's block on its own (Saxe et
al. 2014), matrices from the input uniform by their fan-in. truncated_normal: variance 1/fan_in, redrawn beyond two
standard deviations (Mogrifier LSTM)."""


def truncated_normal(tensor: Tensor, std: float) -> None:
    """Normal, redrawn beyond two standard deviations (so the variance is about 0.77 std squared)."""
    nn.init.trunc_normal_(tensor, std=std, a=-2 * std, b=2 * std)


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
    for block in weight.chunk(blocks):
        if init == "truncated_normal":
            truncated_normal(block, 1 / math.sqrt(fan_in))
        elif init == "orthogonal" and recurrent:
            nn.init.orthogonal_(block)
        else:
            bound = 1 / math.sqrt(width if init == "uniform" else fan_in)
            nn.init.uniform_(block, -bound, bound)


@torch.no_grad()
def fill_vectors(vectors: Iterable[Tensor], value: float = 0.0) -> None:
    """Fill biases or gains with a constant."""
    for vector in vectors:
        vector.fill_(value)
