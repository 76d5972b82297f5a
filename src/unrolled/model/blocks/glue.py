"""What stands between cells is written once, in terms of a few operations; these are they on tensors.

:class:`unrolled.kernels.cell_loop.native.glue.SymbolGlue` has the same on symbols, from which native programs are made.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unrolled.kernels.cell_loop import TableInput, dense
from unrolled.kernels.dispatch import Compute
from unrolled.kernels.linear import glue_linear

__all__ = ["Drop", "Glue", "Layer", "TensorGlue"]

Layer = Callable[[int, Any], Any]
"""(number of a layer, its input) -> its output."""

Drop = Callable[[int, Any], Any]
"""(number of a layer, its output) -> that output, dropped; numbers beyond the layers are those of a block's MLPs."""


class Glue(Protocol):
    """The operations between cells. x, y: values, each (batch, time, width) or standing for it; they have + and *."""

    def dense(self, x: Any) -> Any:
        """A value that may be rows of a table, as a value proper."""
        ...

    def linear(self, x: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
        """x weight^T (+ bias)."""
        ...

    def norm(self, module: nn.Module, x: Any) -> Any:
        """A layer norm or one by root mean square."""
        ...

    def total(self, parts: Sequence[Any]) -> Any:
        """The sum of several values."""
        ...

    def beside(self, parts: Sequence[Any]) -> Any:
        """Several values side by side."""
        ...


class TensorGlue:
    """On tensors. compute: backend and precision."""

    def __init__(self, compute: Compute):
        self._compute = compute

    def dense(self, x: Tensor | TableInput) -> Tensor:
        """See :class:`Glue`."""
        return dense(x)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """See :class:`Glue`."""
        return glue_linear(x, weight, bias, self._compute, "stack")

    def norm(self, module: nn.Module, x: Tensor) -> Tensor:
        """See :class:`Glue`."""
        return module(x)

    def total(self, parts: Sequence[Tensor]) -> Tensor:
        """See :class:`Glue`."""
        return torch.stack(list(parts)).sum(0) if len(parts) > 1 else parts[0]

    def beside(self, parts: Sequence[Tensor]) -> Tensor:
        """See :class:`Glue`."""
        return torch.cat(list(parts), -1) if len(parts) > 1 else parts[0]
