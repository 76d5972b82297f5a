"""Any cell in both directions."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells import CELLS, AnyCellConfig
from unrolled.cells.base import CellConfig, Place
from unrolled.cells.encoders.base import Drop
from unrolled.cells.encoders.wrapping import WrappingEncoder, inner_class

__all__ = ["Bidirectional", "BidirectionalConfig", "mirrored"]


class BidirectionalConfig(CellConfig):
    """Options of a cell in both directions."""

    name: Literal["bidirectional"] = "bidirectional"
    cell: AnyCellConfig = Field(default_factory=lambda: CELLS.parse("lstm"), description="the cell")
    merge: Literal["concat", "sum"] = Field(
        default="concat",
        description="outputs of the directions side by side, each half as wide as the layer, or their sum",
    )


class Bidirectional(WrappingEncoder):
    r"""One cell that reads a row forwards, and another of its kind that reads it backwards (Schuster and Paliwal 1997).

    .. math::
        y_t = [\overrightarrow{h}_t;\, \overleftarrow{h}_t] \quad\text{or}\quad
        y_t = \overrightarrow{h}_t + \overleftarrow{h}_t

    With ``merge = "concat"`` each direction has half the layer's width, so that a layer of width 2N is
    ``torch.nn.LSTM(..., N, bidirectional=True)``. A padded row is turned round behind its padding. Sites inside the
    cell and its recurrent weights are not masked.

    Parameters twice those of the cell.
    """

    Config = BidirectionalConfig
    EXAMPLES = (
        BidirectionalConfig(),
        BidirectionalConfig(cell=CELLS.parse("gru"), merge="sum"),
        BidirectionalConfig(cell=CELLS.parse("mingru")),
        BidirectionalConfig(cell=CELLS.parse({"name": "gla", "heads": 1})),
    )
    EQUATION = "y = [cell(x), reversed cell(reversed x)]"

    def __init__(self, in_width: int, width: int, config: BidirectionalConfig):
        super().__init__(in_width, width, config)
        cls, part = inner_class(config.cell), _each(config, width)
        self.forwards, self.backwards = cls(in_width, part, config.cell), cls(in_width, part, config.cell)
        self.wrap("forwards", "backwards")

    def take_place(self, place: Place) -> None:
        """Both cells stand where the layer does; each direction shares what is its own."""
        super().take_place(place)
        shared: Any = (None, None) if place.shared is None else place.shared
        for cell, own in zip((self.forwards, self.backwards), shared, strict=True):
            cell.take_place(place._replace(shared=own))

    @classmethod
    def make_shared(cls, config: Any, in_width: int, width: int, count: int) -> nn.Module | None:
        """What the cells of each direction share, forwards and backwards."""
        inner = CELLS[config.cell.name]
        made = [inner.make_shared(config.cell, in_width, _each(config, width), count) for _ in range(2)]
        return None if made[0] is None else nn.ModuleList(one for one in made if one is not None)

    def encode(self, x: Tensor, mask: Tensor | None, drop: Drop) -> Tensor:
        """Both directions, each from a fresh state at its row's begin."""
        reset = None if mask is None else _begins(mask)
        ahead, _ = self.forwards(x, None, reset)
        back, _ = self.backwards(mirrored(x, mask), None, reset)
        back = mirrored(back, mask)
        return torch.cat([ahead, back], -1) if self.config.merge == "concat" else ahead + back

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """That of the cell, twice where directions stand side by side."""
        inner = CELLS[config.cell.name].width_multiple(config.cell)
        return 2 * inner if config.merge == "concat" else inner

    @classmethod
    def output_width(cls, config: Any, width: int) -> int:
        """Of both directions."""
        out = CELLS[config.cell.name].output_width(config.cell, _each(config, width))
        return 2 * out if config.merge == "concat" else out

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """Twice those of the cell."""
        return 2 * CELLS[config.cell.name].num_params(config.cell, in_width, _each(config, width))

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """Twice those of the cell."""
        return 2 * CELLS[config.cell.name].flops_per_token(config.cell, in_width, _each(config, width))


def _each(config: Any, width: int) -> int:
    return width // 2 if config.merge == "concat" else width


def _begins(mask: Tensor) -> Tensor:
    """Boolean (batch, time), true at each row's first token."""
    before = torch.cat([torch.zeros_like(mask[:, :1]), mask[:, :-1]], 1)
    return mask & ~before


def mirrored(x: Tensor, mask: Tensor | None) -> Tensor:
    """x (batch, time, ...) with the tokens of each row in the other order, behind the padding; its own inverse."""
    if mask is None:
        return x.flip(1)
    time = x.shape[1]
    steps = torch.arange(time, device=x.device)
    index = torch.where(mask, (~mask).sum(1, keepdim=True) + time - 1 - steps, steps)
    return x.gather(1, index.view(*index.shape, *[1] * (x.dim() - 2)).expand_as(x))
