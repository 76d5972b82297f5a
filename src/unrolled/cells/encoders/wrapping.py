"""Encoders made of cells of the other kind, which read rows in orders of their own."""

from typing import Any

from unrolled.cells import CELLS, CellConfig
from unrolled.cells.base import Cell
from unrolled.cells.encoders.base import EncoderCell
from unrolled.core.errors import UsageError
from unrolled.kernels.dispatch import Compute

__all__ = ["WrappingEncoder", "inner_class"]


class WrappingEncoder(EncoderCell):
    """An encoder around cells, which compute as it does and are trained as they are alone. A subclass makes them and
    names them to :meth:`wrap`."""

    def wrap(self, *names: str) -> None:
        """Take over what the cells in these attributes say of their training."""
        self._wrapped = names
        parts = {name: self.get_submodule(name) for name in names}
        self.parameter_rules = {
            f"{name}.{own}": rule
            for name, part in parts.items()
            if isinstance(part, Cell)
            for own, rule in part.parameter_rules.items()
        }

    @property
    def compute(self) -> Compute:  # type: ignore[override]
        """Backend and precision, which the cells take over."""
        return self._compute

    @compute.setter
    def compute(self, value: Compute) -> None:
        self._compute = value
        for name in getattr(self, "_wrapped", ()):
            setattr(self.get_submodule(name), "compute", value)  # noqa: B010  # a module has no such attribute declared

    def backends(self) -> list[str]:
        """Those of the cells."""
        found: Any = self.get_submodule(self._wrapped[0])
        return found.backends()


def inner_class(config: CellConfig) -> Any:
    """The class of a cell that is to read a row in another order than it has.

    Raises:
        UsageError: an encoder, or a cell that cannot be read so as it is set.
    """
    cls = CELLS[config.name]
    if cls.encodes:
        raise UsageError(f"{config.name} sees both directions already; give it alone.")
    if cls.streams(config) > 1 or cls.causal_from(config):
        raise UsageError(f"{config.name} cannot be read in another order as it is set; give it one stream, no prefix.")
    return cls
