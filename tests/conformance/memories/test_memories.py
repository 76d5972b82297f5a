"""The whole suite over every memory of the table, with each of its example configs."""

from collections.abc import Callable

import pytest

from unrolled.model.memory import MEMORIES, Memory

from .build import CASES, Case
from .checks import CHECKS

# one example of each memory in the quick suite, all of them in the whole one
QUICK = [
    pytest.param(
        case, marks=[] if case.config is case.cls.EXAMPLES[0] and case.stack == "attention" else [pytest.mark.slow]
    )
    for case in CASES
]


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("case", QUICK, ids=str)
def test_memory(case: Case, check: Callable[[Case], None]) -> None:
    check(case)


@pytest.mark.parametrize("name", list(MEMORIES))
def test_row_of_the_table(name: str) -> None:
    cls = MEMORIES[name]
    assert issubclass(cls, Memory)
    assert cls.EXAMPLES
    assert cls.__doc__
    assert MEMORIES.parse(name).name == name, "every option of a memory has a default"
    for field, described in cls.Config.model_fields.items():
        assert described.description or field == "name", f"{field} is described"
    for config in cls.EXAMPLES:
        assert type(config) is cls.Config
        assert MEMORIES.parse(config.model_dump(mode="json")) == config
