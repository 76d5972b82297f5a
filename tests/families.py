"""Cells for tests that take long: one of each family in the quick suite, all of them in the whole one."""

from typing import Any

import pytest

from unrolled.cells import CELLS

__all__ = ["cells_by_family"]


def cells_by_family() -> list[Any]:
    """Parameters by the name of every cell; slow but for the first cell of each folder, however many there are."""
    seen: set[str] = set()
    made = []
    for name in CELLS:
        family = CELLS[name].__module__.rpartition(".")[0]
        made.append(pytest.param(name, marks=[pytest.mark.slow] if family in seen else []))
        seen.add(family)
    return made
