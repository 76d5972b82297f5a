"""The whole suite over every cell of the table, in each of its example configurations."""

from collections.abc import Callable
from operator import attrgetter

import pytest

from families import first_of_each
from unrolled.cells import CELLS, Cell

from .build import CASES, Case, MakeCell
from .checks import CHECKS

EACH = first_of_each(CASES, attrgetter("name"))


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("case", EACH, ids=str)
def test_cell(case: Case, check: Callable[[MakeCell], None]) -> None:
    check(case)


@pytest.mark.parametrize("name", list(CELLS))
def test_row_of_the_table(name: str) -> None:
    cls = CELLS[name]
    assert issubclass(cls, Cell)
    assert cls.EXAMPLES
    assert cls.__doc__
    assert cls.EQUATION
    assert CELLS.parse(name).name == name, "every option of a cell has a default"
    for config in cls.EXAMPLES:
        assert CELLS.parse(config.model_dump(mode="json")) == config
