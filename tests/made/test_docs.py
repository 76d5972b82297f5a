"""The problem of the documentation is sound."""

import re
from pathlib import Path
from typing import Any

import pytest

from conformance.made import checks

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-problem.md"


@pytest.fixture(scope="module")
def majority() -> Any:
    code = next(block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "class " in block)
    names: dict[str, Any] = {"__name__": "majority"}
    exec(compile(code, str(PAGE), "exec"), names)
    return names["Majority"]


@pytest.mark.parametrize("name", checks.__all__)
@pytest.mark.parametrize("example", range(2))
def test_the_problem_of_the_page(majority: Any, example: int, name: str) -> None:
    getattr(checks, name)(majority(majority.EXAMPLES[example]))
