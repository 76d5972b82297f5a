"""Grids of any number of dimensions, read by a scan in one order after another."""

import math
from collections.abc import Sequence
from itertools import permutations
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from unrolled.cells import CELLS, AnyCellConfig
from unrolled.cells.base import CellConfig, Place
from unrolled.cells.encoders.base import Drop
from unrolled.cells.encoders.wrapping import WrappingEncoder, inner_class
from unrolled.core.errors import UsageError

__all__ = ["Grid", "GridConfig", "Order", "order_of", "orders"]

_MOST = 1 << 20


class GridConfig(CellConfig):
    """Options of a cell over a grid."""

    name: Literal["grid"] = "grid"
    cell: AnyCellConfig = Field(default_factory=lambda: CELLS.parse("mingru"), description="the cell")
    shape: tuple[int, ...] = Field(
        default=(8, 8), description="of the grid, the slowest axis first; a row has as many steps as it has points"
    )

    @field_validator("shape", mode="after")
    @classmethod
    def _grid(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not 1 <= len(value) <= 4 or any(size < 1 for size in value) or math.prod(value) > _MOST:
            raise UsageError(
                f"a grid has 1 to 4 axes of sizes from 1, and at most {_MOST:,} points, not {list(value)}; mend shape."
            )
        return value


class Order(NamedTuple):
    """In which order the points of a grid are read. axes: the slowest first. back: from the last to the first."""

    axes: tuple[int, ...]
    back: bool


class Grid(WrappingEncoder):
    r"""Mamba-ND (Li et al. 2024, arXiv:2402.05892): a cell that reads the points of a grid, in an order that changes
    from layer to layer.

    .. math::
        y = \pi^{-1}(\mathrm{cell}(\pi(x)))

    from a fresh state for each row. A stack's layers of this kind take the orders of :func:`orders` in turn: of an
    image forwards and backwards along its lines, then along its columns; of a video (t, h, w), (t, w, h), (w, h, t),
    each forwards and backwards; of a single axis forwards and backwards. So the layers should be a multiple of 4, 6 or
    2, and two are what an output needs to see every point. Axes of 4 dimensions go through all permutations.

    The paper's block is this cell in a residual stack: norm, ``cell = "mamba"``, sum, and no MLP. Its learned positions
    are not here: a row of which they are to be part brings them in its channels. The published code takes images for
    squares where it swaps their axes; here each axis has its own size.

    Parameters are the cell's.
    """

    Config = GridConfig
    EXAMPLES = (
        GridConfig(shape=(3, 4)),
        GridConfig(shape=(2, 3, 2), cell=CELLS.parse({"name": "mamba", "states": 3})),
        GridConfig(shape=(5,), cell=CELLS.parse("gru")),
        GridConfig(shape=(2, 1, 2, 3), cell=CELLS.parse("mingru")),
    )
    EQUATION = "y = cell over the points of a grid, in the layer's order"
    sees_all_after = 2

    def __init__(self, in_width: int, width: int, config: GridConfig):
        super().__init__(in_width, width, config)
        self.cell = inner_class(config.cell)(in_width, width, config.cell)
        self.wrap("cell")

    def take_place(self, place: Place) -> None:
        """The layer's turn says its order; the cell stands there too."""
        super().take_place(place)
        self.cell.take_place(place)

    @classmethod
    def make_shared(cls, config: Any, in_width: int, width: int, count: int) -> nn.Module | None:
        """What the cells share."""
        return CELLS[config.cell.name].make_shared(config.cell, in_width, width, count)

    @property
    def order(self) -> Order:
        """In which order this layer reads."""
        found = orders(len(self.config.shape))
        return found[self.place.turn % len(found)]

    def encode(self, x: Tensor, mask: Tensor | None, drop: Drop) -> Tensor:
        """See :meth:`EncoderCell.encode`; no row is padded."""
        there, back = order_of(self.config.shape, self.order)
        y, _ = self.cell(x[:, there.to(x.device)])
        return y[:, back.to(x.device)]

    @classmethod
    def row_steps(cls, config: Any) -> int | None:
        """The points of the grid."""
        return math.prod(config.shape)

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """That of the cell."""
        return CELLS[config.cell.name].width_multiple(config.cell)

    @classmethod
    def output_width(cls, config: Any, width: int) -> int:
        """That of the cell."""
        return CELLS[config.cell.name].output_width(config.cell, width)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """Those of the cell."""
        return CELLS[config.cell.name].num_params(config.cell, in_width, width)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """Those of the cell."""
        return CELLS[config.cell.name].flops_per_token(config.cell, in_width, width)


def orders(axes: int) -> list[Order]:
    """The orders that layers take in turn, each forwards, then backwards: of three axes (t, h, w) those of the paper,
    (t, h, w), (t, w, h), (w, h, t), else all permutations, as they are written first."""
    chosen = [(0, 1, 2), (0, 2, 1), (2, 1, 0)] if axes == 3 else list(permutations(range(axes)))
    return [Order(tuple(axis), back) for axis in chosen for back in (False, True)]


def order_of(shape: Sequence[int], order: Order) -> tuple[Tensor, Tensor]:
    """int64 (points,) each: which point is read at each step, and at which step each point is."""
    there = torch.arange(math.prod(shape)).view(*shape).permute(order.axes).flatten()
    there = there.flip(0) if order.back else there
    return there, there.argsort()
