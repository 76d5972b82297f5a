"""The operations between the cells of a stack, on symbols: what a program of all its layers is made by."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.kernels.cell_loop.native.graph import apply
from unrolled.kernels.cell_loop.native.symbols import Symbol, SymbolicWeights, Unsupported

__all__ = ["SymbolGlue"]


class SymbolGlue:
    """As :class:`unrolled.model.blocks.glue.Glue` describes.

    Args:
        own: the weights that are spoken of, by name. symbolic: all weights of the program.
    """

    def __init__(self, own: Mapping[str, Tensor], symbolic: SymbolicWeights):
        self._names = {id(weight): name for name, weight in own.items()}
        self._symbolic = symbolic

    def dense(self, x: Symbol) -> Symbol:
        """x, which is no table."""
        return x

    def linear(self, x: Symbol, weight: Tensor, bias: Tensor | None = None) -> Symbol:
        """x weight^T (+ bias)."""
        y = self._symbolic.linear(self._names[id(weight)], x)
        return y if bias is None else y + self._vector(bias)

    def norm(self, module: nn.Module, x: Symbol) -> Symbol:
        """A layer norm or one by root mean square. Raises Unsupported for another module."""
        if not isinstance(module, nn.LayerNorm | nn.RMSNorm):
            raise Unsupported(f"a {type(module).__name__} has no native form")
        centred: Any = isinstance(module, nn.LayerNorm)
        y = Symbol(apply("norm" if centred else "rms", x.ref, shift=module.eps)) * self._vector(module.weight)  # type: ignore[arg-type]
        return y + self._vector(module.bias) if centred and module.bias is not None else y

    def total(self, parts: Sequence[Symbol]) -> Symbol:
        """The sum of several values."""
        first, *rest = parts
        for part in rest:
            first = first + part
        return first

    def beside(self, parts: Sequence[Symbol]) -> Symbol:
        """Several values side by side."""
        joined: Any = torch.cat(list(parts), -1) if len(parts) > 1 else parts[0]  # type: ignore[arg-type]
        return joined

    def _vector(self, weight: Tensor) -> Symbol:
        return self._symbolic[self._names[id(weight)]]
