"""The whole suite over every adapter of the table, with each of its example options."""

from collections.abc import Callable
from operator import attrgetter

import pytest

from families import first_of_each
from unrolled.predict import ADAPTERS, Adapter, PredictorConfig

from .build import CASES, Case
from .checks import CHECKS


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("case", first_of_each(CASES, attrgetter("adapter")), ids=str)
def test_adapter(case: Case, check: Callable[[Case], None]) -> None:
    check(case)


@pytest.mark.parametrize("name", list(ADAPTERS))
def test_row_of_the_table(name: str) -> None:
    cls = ADAPTERS[name]
    assert issubclass(cls, Adapter)
    assert cls.name() == name
    assert cls.EXAMPLES
    assert cls.__doc__
    assert cls.title
    for field, described in cls.Config.model_fields.items():
        assert described.description or field == "name", f"{field} is described"
    short = cls.Config.short
    assert short is None or short in cls.Config.model_fields or name == "dynamic", "what a bare value sets is an option"
    for config in cls.EXAMPLES:
        (read,) = PredictorConfig.parse({"adapters": [config.model_dump(mode="json")]}).adapters
        assert read == config
    if cls.search is not None:
        grid = [options for _, options in cls.search.grid(cls.EXAMPLES[0])]
        assert len(set(map(str, grid))) == len(grid) > 1
        assert all(type(options) is cls.Config for options in grid)
