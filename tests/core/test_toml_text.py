"""Values written as TOML are read again as they were."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unrolled.core.toml_text import toml_text

PLAIN = st.one_of(
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("ab.c '\"é", max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text('ab._- "é', max_size=5), VALUES, max_size=5))
def test_it_comes_back(value: dict[str, Any]) -> None:
    assert tomllib.loads(toml_text(value)) == value


def test_how_it_looks() -> None:
    value = {
        "title": "a 'b'", "seeds": (1, 2), "none": None, "match": {"budget": {"tokens": 5}, "x": None},
        "system": [{"name": "A", "set": ["model.cell.name=lstm"]}, {"name": "B"}],
    }  # fmt: skip
    assert toml_text(value) == (
        "title = \"a 'b'\"\nseeds = [1, 2]\n\n[match]\nbudget = { tokens = 5 }\n\n"
        '[[system]]\nname = "A"\nset = ["model.cell.name=lstm"]\n\n[[system]]\nname = "B"\n'
    )


def test_what_toml_has_not() -> None:
    with pytest.raises(ValueError, match="TOML has no complex"):
        toml_text({"a": 1j})
