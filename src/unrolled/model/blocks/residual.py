"""Residual blocks: a norm and a cell, then a norm and an MLP, each added to what came in."""

from functools import partial
from typing import Any

from torch import nn

from unrolled.cells.feedforward.mlp import GATED, hidden_of, hidden_width
from unrolled.model.blocks.glue import Drop, Glue, Layer
from unrolled.model.blocks.norm import make_norm
from unrolled.model.blocks.stack import Stack

__all__ = ["ResidualStack"]


class _Mlp(nn.Module):
    """Parameters of a block's MLP; see :mod:`unrolled.cells.feedforward.mlp` for what the kinds are."""

    def __init__(self, kind: str, width: int, hidden: int, bias: bool):
        super().__init__()
        self.kind = kind
        self.up, self.down = nn.Linear(width, hidden, bias), nn.Linear(hidden, width, bias)
        self.gate = nn.Linear(width, hidden, bias) if kind in GATED else None

    def through(self, x: Any, glue: Glue) -> Any:
        """The MLP of x, on whatever ``glue`` works on."""

        def product(part: nn.Linear, x: Any) -> Any:
            return glue.linear(x, part.weight, part.bias)

        gate = None if self.gate is None else product(self.gate, x)
        return product(self.down, hidden_of(self.kind, product(self.up, x), gate))


class ResidualStack(Stack):
    """x + cell(norm(x)), then x + mlp(norm(x)) where ``mlp`` is set; the output is normed. A cell that is not
    ``normed`` reads x itself. Of several streams each by itself."""

    one_width = residual = True

    @property
    def branches(self) -> int:
        """See :attr:`Stack.branches`: the cells, then the MLPs."""
        return len(self.layers) * (2 if self.config.mlp else 1)

    def build(self) -> None:
        """See :meth:`Stack.build`."""
        config, width = self.config, self.out_width // self.streams
        self.norms = nn.ModuleList(
            make_norm(config.norm, width, config.norm_epsilon, config.norm_bias) if cell.normed else nn.Identity()
            for cell in self.cells()
        )
        if config.mlp:
            hidden = hidden_width(config.mlp, width)
            self.mlp_norms = nn.ModuleList(
                make_norm(config.norm, width, config.norm_epsilon, config.norm_bias) for _ in self.layers
            )
            self.mlps = nn.ModuleList(_Mlp(config.mlp_kind, width, hidden, config.mlp_bias) for _ in self.layers)

    def connect(self, x: Any, layer: Layer, drop: Drop, glue: Glue) -> Any:
        """See :meth:`Stack.connect`."""
        x = glue.dense(x)
        normed = [cell.normed for cell in self.cells()]
        for i in range(len(self.layers)):
            entry = self.apart(partial(glue.norm, self.norms[i]), x) if normed[i] else x
            x = x + drop(i, layer(i, entry))
            if self.config.mlp:
                x = x + drop(len(self.layers) + i, self.apart(partial(self._mlp, i, glue), x))
        return x

    def _mlp(self, i: int, glue: Glue, x: Any) -> Any:
        mlp: Any = self.mlps[i]
        return mlp.through(glue.norm(self.mlp_norms[i], x), glue)
