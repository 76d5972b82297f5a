"""What a layout of published weights is made of."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from torch import Tensor

from unrolled.model.lm import LanguageModel

__all__ = ["Layout", "Row", "row"]


class Row(NamedTuple):
    """One parameter of ours: its name, the names that its parts may have in the published file (one name of each
    group must be there, the first is the truth), and how they make it up (ValueError where they do not go together)."""

    name: str
    sources: tuple[tuple[str, ...], ...]
    make: Callable[..., Tensor]


class Layout(NamedTuple):
    """rows: for a model. plain: a name in a file without what later code has wrapped around it. example: of names."""

    rows: Callable[[LanguageModel], Iterable[Row]]
    plain: Callable[[str], str]
    example: str


def row(name: str, *names: str, make: Callable[..., Tensor] = lambda tensor: tensor) -> Row:
    """A parameter that one tensor makes up, under any of ``names``."""
    return Row(name, (names,), make)
