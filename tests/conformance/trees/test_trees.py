"""Every check on every tree cell's EXAMPLES."""

from typing import Any

import pytest

from conformance.trees import checks
from conformance.trees.broken import BROKEN
from conformance.trees.forests import tree
from unrolled.cells import CELLS, TREES
from unrolled.core.errors import UsageError

CHECKS = (
    checks.backends_agree, checks.gradients, checks.trees_are_independent, checks.nodes_see_what_is_below,
    checks.num_params, checks.bf16_is_near_and_other,
)  # fmt: skip
CASES = [(name, index) for name in TREES for index in range(len(TREES[name].EXAMPLES))]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_checks(case: tuple[str, int], check: Any) -> None:
    cls = TREES[case[0]]
    check(cls, cls.EXAMPLES[case[1]])


@pytest.mark.parametrize(("broken", "check"), BROKEN, ids=lambda one: one.__name__)
def test_a_broken_cell_is_noticed(broken: Any, check: Any) -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        check(broken, broken.EXAMPLES[0])


@pytest.mark.parametrize("name", list(TREES))
def test_row_of_the_table(name: str) -> None:
    cls = TREES[name]
    assert name not in CELLS, "a tree cell reads no sequence"
    assert cls.EQUATION
    assert cls.EXAMPLES[0] == cls.Config()
    for config in cls.EXAMPLES:
        assert config.name == name
        assert TREES.parse(config.model_dump(mode="json")) == config
    assert all(field.description for key, field in cls.Config.model_fields.items() if key != "name")
    with pytest.raises(UsageError, match="unknown config key"):
        cls.Config.parse({"name": name, "widht": 1})


@pytest.mark.parametrize("name", [name for name in TREES if TREES[name].arity is not None])
@pytest.mark.parametrize("arity", [1, 3])
def test_another_number_of_children_is_refused(name: str, arity: int) -> None:
    cls = TREES[name]
    cell, parents = checks.made(cls, cls.EXAMPLES[0]), tree(1, 3, None if arity == 1 else 3)
    if arity == 1:
        from conformance.trees.forests import chain

        parents = chain(3)
    with pytest.raises(UsageError, match=f"the {name} joins 2 children at each inner node, and one has {arity}"):
        cell(checks.wave(len(parents), 5), parents)
