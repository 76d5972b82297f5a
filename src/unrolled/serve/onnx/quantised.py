"""The 8-bit weights of :mod:`unrolled.predict.packed`, as operations that ONNX has.

The same arithmetic: each row of a matrix is rounded to integers of -127 to 127 with a scale of its own, each vector
that it multiplies with one scale when it is multiplied, and the sums of integers are exact. The products are
``MatMulInteger`` of two unsigned factors, shifted by 128: signed weights are a sixth faster where the processor has
VNNI, but ONNX Runtime adds their products in 16 bits where it has not, which can overflow.
"""

from typing import Any

import torch
from torch import Tensor

from unrolled.cells import StepCell
from unrolled.cells.mixer import MixerCell
from unrolled.kernels.cell_loop import Noise, Weights, silent
from unrolled.kernels.cell_loop.loop import run_loop
from unrolled.model import LanguageModel
from unrolled.model.blocks.glue import TensorGlue
from unrolled.model.heads.matrix import MatrixHead

__all__ = ["integer_product", "quantise_products"]

_LARGEST, _SHIFT = 127, 128
_LEAST = 1e-30  # of a row's largest number: 127 over it is finite still


def quantise_products(model: LanguageModel) -> None:
    """Put integer products in the place of a model's products with matrices, those of its cells, of what is between
    them, and of a head that has an output matrix. The model can then be recorded, and not be called."""
    for cell in model.stack.cells():
        if isinstance(cell, StepCell):
            cell.forward = _IntegerStep(cell)  # type: ignore[method-assign]
        elif isinstance(cell, MixerCell):
            cell.packed = _packed
    model.stack.glue = lambda: _IntegerGlue(model.config.compute)  # type: ignore[method-assign]
    if isinstance(model.head, MatrixHead):
        model.head.linear = integer_product  # type: ignore[method-assign]


def integer_product(v: Tensor, weight: Tensor, add: Tensor | None = None) -> Tensor:
    """v W^T (+ add) by integers.

    Args:
        v: (..., in). weight: (out, in); or (blocks, out, in), block-diagonal, each block a matrix of its own.
        add: (out,) or (..., out).
    """
    if weight.dim() == 3:
        parts = v.unflatten(-1, (weight.shape[0], -1)).unbind(-2)
        y = torch.cat([integer_product(part, block) for part, block in zip(parts, weight.unbind(0), strict=True)], -1)
        return y if add is None else y + add
    scale, integers = _integers(v)
    row_scale, matrix = _integers(weight)
    sums = torch.onnx.ops.symbolic(
        "MatMulInteger",
        [integers, matrix.t().contiguous(), _shift(), _shift()],
        dtype=torch.int32,
        shape=[*v.shape[:-1], weight.shape[0]],
    )
    # one scale after the other: ONNX Runtime 1.32 makes one operation of a product by both at once, and loses what is
    # added behind it wherever the vectors have scales of their own
    y = sums.to(v.dtype) * row_scale.squeeze(1) * scale
    return y if add is None else y + add


def _integers(rows: Tensor) -> tuple[Tensor, Tensor]:
    """What one integer of each row stands for, (..., 1), and the integers (..., width), shifted to unsigned ones."""
    top = rows.abs().amax(-1, keepdim=True)
    integers = torch.round(rows * (_LARGEST / top.clamp_min(_LEAST)))
    return top / _LARGEST, (integers + _SHIFT).to(torch.uint8)


def _shift() -> Tensor:
    return torch.tensor(_SHIFT, dtype=torch.uint8)


def _packed(v: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
    """See :attr:`MixerCell.packed`; block-diagonal matrices stay as they are, as in decoding."""
    return integer_product(v, weight, bias) if weight.dim() == 2 else None


class _IntegerWeights(Weights):
    def linear(self, name: str, v: Tensor, add: Tensor | None = None) -> Tensor:
        return integer_product(v, self.named[self.prefix + name], add)


class _IntegerStep:
    """In the place of a cell's ``forward``."""

    def __init__(self, cell: StepCell):
        self._cell = cell

    def __call__(self, x: Tensor, state: Any, reset: None = None, noise: Noise | None = None) -> tuple[Tensor, Any]:
        weights = _IntegerWeights(self._cell.effective_weights())
        return run_loop(self._cell, x, state, reset, noise, silent, weights, weights)


class _IntegerGlue(TensorGlue):
    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """See :class:`unrolled.model.blocks.glue.Glue`."""
        return integer_product(x, weight, bias)
