"""A model whose matrices are packed one by one, for stacks that are no single program: those with mixers in them.

Every product with a matrix of weights is made by the native library from packed weights; what is between the products
is what the cells compute anyway. A cell that goes step by step is a program of its own.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.cells import Cell, StepCell
from unrolled.cells.mixer import MixerCell
from unrolled.core.tree import leaves, map_tree
from unrolled.kernels.cell_loop.native.packed import Prepared, prepare_chain, trace_stack
from unrolled.kernels.cpu import Products, library
from unrolled.kernels.dispatch import Compute
from unrolled.model import LanguageModel
from unrolled.model.blocks.glue import TensorGlue

__all__ = ["packed_model"]


class _Matrix:
    """x W^T (+ b) from packed weights."""

    def __init__(self, weight: Tensor, bias: Tensor | None, products: Products):
        self._step = prepare_chain(library(), [weight.detach()], None if bias is None else bias.detach(), products)

    def __call__(self, x: Tensor) -> Tensor:
        ready = self._step.ready(1, x.numel() // x.shape[-1])
        ready.x.copy_(x.reshape(ready.x.shape))
        ready.call()
        return ready.last.clone().view(*x.shape[:-1], -1)


class _Matrices:
    """Products by matrix, each packed when it is first asked for. A block-diagonal one stays as it is."""

    def __init__(self, products: Products):
        self._products: Products = products
        self._made: dict[tuple[int, int], _Matrix] = {}

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
        """x weight^T (+ bias); None for what is not packed."""
        if weight.dim() != 2:
            return None
        key = id(weight), id(bias)
        if key not in self._made:
            self._made[key] = _Matrix(weight, bias, self._products)
        return self._made[key](x)


class _Glue(TensorGlue):
    """What stands between the cells, with packed matrices."""

    def __init__(self, compute: Compute, matrices: _Matrices):
        super().__init__(compute)
        self._matrices = matrices

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """See :class:`unrolled.model.blocks.glue.Glue`."""
        y = self._matrices.linear(x, weight, bias)
        return super().linear(x, weight, bias) if y is None else y


class _Step:
    """A cell with a step as a program of its own, called as the cell is."""

    def __init__(self, cell: StepCell, zoneout: Mapping[str, float], products: Products):
        self._form = cell.initial_state(1)

        def between(x: Any, run: Any, glue: Any) -> Any:
            return run(0, x)

        def prepared(reset: bool) -> Prepared:
            return Prepared(library(), *trace_stack([cell], between, cell.in_width, {}, zoneout, reset), products)  # type: ignore[list-item]

        self._plain, self._restarting = prepared(False), prepared(True)

    def __call__(self, x: Tensor, state: Any, reset: Tensor | None = None, noise: Any = None) -> tuple[Tensor, Any]:
        """See :meth:`unrolled.cells.Cell.forward`; noise is that of zoneout in evaluation, which the program has."""
        given = {"x": x.transpose(0, 1)}
        if reset is not None:
            given["fresh"] = (~reset).to(x.dtype).t().unsqueeze(-1)
        step = self._plain if reset is None else self._restarting
        y, after = step(given, torch.cat(list(leaves(state)), 1))
        assert after is not None
        parts = iter(after.split([part.shape[1] for part in leaves(self._form)], 1))
        return y.transpose(0, 1), map_tree(lambda _: next(parts), self._form)


def packed_model(model: LanguageModel, products: Products) -> LanguageModel:
    """A model with copies of the matrices of its stack, packed; the rest is the model's own.

    Raises:
        Unsupported: a cell with a step that the native library cannot follow.
    """
    matrices = _Matrices(products)

    def layer(cell: Cell) -> nn.Module:
        made: Any = cell.settled() if isinstance(cell, MixerCell) else copy.copy(cell)
        if isinstance(cell, StepCell):
            made.forward = _Step(cell, model.config.dropout.zoneout, products)
        else:
            made.packed = matrices.linear
        return made

    stack = _with(model.stack, "layers", nn.ModuleList(layer(cell) for cell in model.stack.cells()))
    stack.glue = lambda: _Glue(model.config.compute, matrices)
    return _with(model, "stack", stack)


def _with(module: Any, name: str, part: nn.Module) -> Any:
    """A copy of a module, with the same parameters, in which one part is another."""
    made = copy.copy(module)
    made.__dict__["_modules"] = {**module._modules, name: part}
    return made
