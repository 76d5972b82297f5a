"""The base of the cells' configurations."""

from collections.abc import Callable
from typing import Self

from unrolled.core.config import Config
from unrolled.core.graph import Graph

__all__ = ["CellConfig"]


class CellConfig(Config):
    """Base of the cells' configurations. A subclass fixes ``name`` to the cell's name in the table."""

    name: str

    def with_graph(self, graph: Callable[[], Graph]) -> Self:
        """The configuration for data whose numbers are nodes of a graph; cells that are to have that one ask and keep
        it. A cell around another hands it on."""
        inner = getattr(self, "cell", None)
        return self.model_copy(update={"cell": inner.with_graph(graph)}) if isinstance(inner, CellConfig) else self
