"""A model whose matrices are packed one by one, for stacks that are no single program: those with mixers in them.

Every product with a matrix of weights is made by the native library from packed weights; what is between the products
is what the cells compute anyway. A cell that goes step by step is a program of its own.
"""

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
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

__all__ = ["packed_model", "packed_twin", "with_layers"]


class _Matrix:
    """x W^T (+ b) from packed weights."""

    def __init__(self, step: Prepared):
        self._step = step

    def twin(self) -> "_Matrix":
        return _Matrix(self._step.twin())

    def __call__(self, x: Tensor) -> Tensor:
        ready = self._step.ready(1, x.numel() // x.shape[-1])
        ready.x.copy_(x.reshape(ready.x.shape))
        ready.call()
        return ready.last.clone().view(*x.shape[:-1], -1)


class Matrices:
    """Products by matrix, each packed when it is first asked for. A block-diagonal one stays as it is.

    Args:
        shared: those of another thread, whose packed weights these have too.
    """

    def __init__(self, products: Products, shared: "Matrices | None" = None):
        self.products: Products = products
        self._shared = shared
        self._lock = threading.Lock()
        self._made: dict[tuple[int, int], _Matrix] = {}

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
        """x weight^T (+ bias); None for what is not packed."""
        if weight.dim() != 2:
            return None
        return self._packed(weight, bias)(x)

    def _packed(self, weight: Tensor, bias: Tensor | None) -> _Matrix:
        key = id(weight), id(bias)
        with self._lock:
            if key not in self._made:
                if self._shared is not None:
                    self._made[key] = self._shared._packed(weight, bias).twin()
                else:
                    rest = None if bias is None else bias.detach()
                    self._made[key] = _Matrix(prepare_chain(library(), [weight.detach()], rest, self.products))
            return self._made[key]


class _Glue(TensorGlue):
    """What stands between the cells, with packed matrices."""

    def __init__(self, compute: Compute, matrices: Matrices):
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

    def twin(self) -> "_Step":
        """The same with memory of its own, for another thread."""
        made = copy.copy(self)
        made._plain, made._restarting = self._plain.twin(), self._restarting.twin()
        return made

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

    def layer(cell: Cell, linear: Any) -> nn.Module:
        made: Any = cell.settled() if isinstance(cell, MixerCell) else copy.copy(cell)
        if isinstance(cell, StepCell):
            made.forward = _Step(cell, model.config.dropout.zoneout, products)
        else:
            made.packed = linear
        return made

    return _assembled(model, Matrices(products), layer)


def packed_twin(model: LanguageModel) -> LanguageModel:
    """What :func:`packed_model` made, for another thread: the packed weights are shared, working memory is not."""
    shared: Any = model.stack.matrices

    def layer(cell: Cell, linear: Any) -> nn.Module:
        made: Any = copy.copy(cell)
        if isinstance(cell, StepCell):
            made.forward = made.forward.twin()
        else:
            made.packed = linear
        return made

    return _assembled(model, Matrices(shared.products, shared), layer)


def _assembled(model: LanguageModel, matrices: Matrices, layer: Callable[[Cell, Any], nn.Module]) -> LanguageModel:
    made = nn.ModuleList(layer(cell, matrices.linear) for cell in model.stack.cells())
    stack = _with(model.stack, "layers", made)
    stack.matrices, stack.glue = matrices, lambda: _Glue(model.config.compute, matrices)
    return _with(model, "stack", stack)


def with_layers(model: LanguageModel, layers: Sequence[nn.Module]) -> LanguageModel:
    """A copy of a model, with the same parameters but for those of its layers, which are others."""
    return _with(model, "stack", _with(model.stack, "layers", nn.ModuleList(layers)))


def _with(module: Any, name: str, part: nn.Module) -> Any:
    """A copy of a module, with the same parameters, in which one part is another."""
    made = copy.copy(module)
    made.__dict__["_modules"] = {**module._modules, name: part}
    return made
