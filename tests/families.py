"""The quick suite takes the first few of each kind where a test is there for everything; the whole one takes all."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from unrolled.cells import CELLS

__all__ = ["cells_by_family", "family_of", "first_of_each"]


def first_of_each(
    items: Iterable[Any], kind: Callable[[Any], object], keep: int = 1, *, unpack: bool = False
) -> list[Any]:
    """Parameters of a test; slow but for the first ``keep`` of each ``kind``, however many there are.

    ``unpack``: an item is a tuple, of which each part is a parameter of its own.
    """
    seen: Counter[object] = Counter()
    made = []
    for item in items:
        of = kind(item)
        seen[of] += 1
        marks = [pytest.mark.slow] if seen[of] > keep else []
        made.append(pytest.param(*(item if unpack else (item,)), marks=marks))
    return made


def family_of(cell: str) -> str:
    """The folder that a cell's module is in."""
    return CELLS[cell].__module__.rpartition(".")[0]


def cells_by_family() -> list[Any]:
    """Parameters by the name of every cell; slow but for the first cell of each folder."""
    return first_of_each(CELLS, family_of)
