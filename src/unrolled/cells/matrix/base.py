"""What the cells with a matrix state share."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig
from unrolled.cells.mixer import Given, MixerCell
from unrolled.cells.parts.short_conv import ShortConv
from unrolled.kernels.silu_gate import silu_gate

__all__ = [
    "SMALL_GAIN",
    "ConvMatrixState",
    "HeadsConfig",
    "MatrixCell",
    "MatrixState",
    "by_fan_in",
    "fill",
    "normal",
    "unit",
    "xavier",
]

SMALL_GAIN = 2**-2.5
"""Gain of the xavier start that the public code of RetNet, GLA and HGRN2 has."""


class HeadsConfig(CellConfig):
    """Options of a cell with heads."""

    heads: int = Field(default=4, ge=1, le=4096, description="heads, each with a matrix of its own")


class MatrixState(NamedTuple):
    """s: (batch, heads, keys, values)."""

    s: Tensor


class ConvMatrixState(NamedTuple):
    """s: (batch, heads, keys, values). conv: (batch, kernel - 1, channels), the last inputs of the convolution."""

    s: Tensor
    conv: Tensor


@torch.no_grad()
def fill(how: Callable[[Tensor], object], parameters: Iterable[Tensor | None]) -> None:
    """Draw parameters anew, but for what is not there and those of a model that is only counted."""
    for parameter in parameters:
        if parameter is not None and not parameter.is_meta:
            how(parameter)


def xavier(gain: float) -> Callable[[Tensor], object]:
    """Uniform with the bound of Glorot and Bengio 2010 times ``gain``."""
    return lambda matrix: nn.init.xavier_uniform_(matrix, gain)


def by_fan_in(matrix: Tensor) -> Tensor:
    """Uniform as in ``torch.nn.Linear``, U(+-in^-1/2) for a matrix (out, in)."""
    bound = matrix.shape[-1] ** -0.5
    return nn.init.uniform_(matrix, -bound, bound)


def unit(x: Tensor) -> Tensor:
    """x / |x| along the last dimension, with 10^-6 beside the square."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def normal(std: float) -> Callable[[Tensor], object]:
    """Normal of mean 0."""
    return lambda matrix: nn.init.normal_(matrix, 0, std)


class MatrixCell(MixerCell):
    """A cell whose state is a matrix (keys, values) for each head, computed by ``matrix_scan``.

    A subclass says :meth:`head_sizes`, and makes a short convolution ``conv`` if it has one; the initial state follows.
    """

    State: type = MatrixState
    operation = "matrix_scan"
    matrix_fields = ("s",)

    def __init__(self, in_width: int, width: int, config: Any):
        super().__init__(in_width, width, config)
        self.conv: ShortConv | None = None

    @classmethod
    def head_sizes(cls, config: Any, width: int) -> tuple[int, int, int]:
        """Heads, keys of a head and values of a head."""
        raise NotImplementedError

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """The number of heads."""
        return config.heads

    @classmethod
    def read_flops(cls, config: Any, width: int) -> int:
        """2 H K V, what reading the state with one vector of keys takes."""
        heads, keys, values = cls.head_sizes(config, width)
        return 2 * heads * keys * values

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """Zeros."""
        s = torch.zeros(batch, *self.head_sizes(self.config, self.width), device=device, dtype=dtype)
        return MatrixState(s) if self.conv is None else ConvMatrixState(s, self.conv.initial(batch, device, dtype))

    def after(self, s: Tensor, conv: Tensor | None) -> Any:
        """The State after a window."""
        return MatrixState(s) if conv is None else ConvMatrixState(s, conv)

    def options(self, state: Any, given: Given) -> dict[str, Any]:
        """What every call of the operation is given beside its vectors."""
        return {"state": state.s, "reset": given.reset, "backend": self.wish, "subject": self.name}

    def convolved(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Tensor | None]:
        """The short convolution of x and its cache after the window; x itself and None where there is none."""
        if self.conv is None:
            return x, None
        return self.conv(x, state.conv, given.reset, self.wish_for("causal_conv"), self.name)

    def normed(self, norm: Any, o: Tensor) -> Tensor:
        """The norm of heads (batch, time, heads, n) of the operation's output, as (batch, time, heads * n)."""
        return norm(o, self.wish_for("rms_norm")).flatten(2)

    def gated(self, y: Tensor, gate: Tensor, skip: Tensor | None = None, u: Tensor | None = None) -> Tensor:
        """(y + skip * u) * SiLU(gate)."""
        return silu_gate(y, gate, skip, u, self.wish_for("silu_gate"), self.name)

    def show_gate(self, given: Given, name: str, pre: Tensor) -> None:
        """Name a logistic gate and what goes into it."""
        if given.show is not None:
            given.show(f"{name}_pre", pre)
            given.show(name, torch.sigmoid(pre))
