"""The whole suite over every head of the table, with each of its example configs."""

from collections.abc import Callable
from operator import attrgetter

import pytest

from families import first_of_each
from unrolled.model.heads import HEADS, Head

from .build import CASES, Case
from .checks import CHECKS


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("case", first_of_each(CASES, attrgetter("cls"), keep=2), ids=str)
def test_head(case: Case, check: Callable[[Case], None]) -> None:
    check(case)


@pytest.mark.parametrize("name", list(HEADS))
def test_row_of_the_table(name: str) -> None:
    cls = HEADS[name]
    assert issubclass(cls, Head)
    assert cls.EXAMPLES
    assert cls.__doc__
    assert HEADS.parse(name).name == name, "every option of a head has a default"
    for field, described in cls.Config.model_fields.items():
        assert described.description or field == "name", f"{field} is described"
    for config in cls.EXAMPLES:
        assert type(config) is cls.Config
        assert HEADS.parse(config.model_dump(mode="json")) == config
