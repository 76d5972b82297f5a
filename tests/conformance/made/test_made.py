"""Every check on every problem's EXAMPLES."""

import hashlib
import subprocess
import sys
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.made import checks
from conformance.made.broken import BROKEN, Plain, PlainConfig
from families import first_of_each
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data.made import MADE, ProblemConfig
from unrolled.data.made.group import GroupConfig

CHECKS = tuple(getattr(checks, name) for name in checks.__all__)
EXAMPLES = [config for name in MADE for config in MADE[name].EXAMPLES]


def name_of(value: Any) -> str:
    if isinstance(value, ProblemConfig):
        return f"{value.name}-{MADE[value.name].EXAMPLES.index(value)}"
    return value.__name__


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
@pytest.mark.parametrize("config", first_of_each(EXAMPLES, attrgetter("name"), keep=2), ids=name_of)
def test_checks(config: ProblemConfig, check: Any) -> None:
    check(MADE[config.name](config))


@pytest.mark.slow  # 11,000 rows of each
@pytest.mark.parametrize("config", EXAMPLES, ids=name_of)
def test_many_rows_share_nothing(config: ProblemConfig) -> None:
    checks.splits_share_nothing(MADE[config.name](config), 1000)


@pytest.mark.parametrize(("broken", "check"), BROKEN, ids=name_of)
def test_a_broken_problem_is_noticed(broken: Any, check: Any) -> None:
    with pytest.raises(AssertionError):
        check(broken(PlainConfig()))


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
def test_the_problem_that_the_broken_ones_come_from_is_sound(check: Any) -> None:
    check(Plain(PlainConfig()))


@pytest.mark.parametrize("name", list(MADE))
def test_config(name: str) -> None:
    cls = MADE[name]
    for config in (MADE.parse(name), *cls.EXAMPLES):
        assert cls.Config.parse(config.model_dump(mode="json")) == config
        assert MADE.parse({"name": name}).name == name
    for field, about in cls.Config.model_fields.items():
        assert field == "name" or about.description, f"{name}.{field} is not described"
    problem = cls(MADE.parse(name))
    assert problem.symbols
    with pytest.raises(UsageError, match="has no setting 'lenght'"):
        problem.at(lenght=3)
    with pytest.raises(UsageError, match="has no setting 'name'"):
        problem.at(name="copy")
    assert cls.__doc__


@pytest.mark.parametrize("name", list(MADE))
def test_every_option_changes_rows(name: str) -> None:
    """Each setting is turned by some example, or by a point, and changes what is drawn or asked."""
    cls, plain = MADE[name], MADE.parse(name)
    for field in set(cls.Config.model_fields) - {"name"}:
        turned = [one for one in cls.EXAMPLES if getattr(one, field) != getattr(plain, field)]
        assert turned, f"no example sets {field}"
        pairs = [(one, getattr(plain, field)) for one in turned] + [(plain, getattr(one, field)) for one in turned]
        assert any(_differs(one, field, value) for one, value in pairs), f"{field} changes nothing"


def _differs(config: ProblemConfig, field: str, value: Any) -> bool:
    """Whether the option at another value gives other rows; not where that does not go with the others."""
    cls, batches = MADE[config.name], []
    for one in (config, config.model_copy(update={field: value})):
        try:
            batches.append(cls(one).batch(RandomStreams(1), "train", 0, 40))
        except UsageError:
            return False
    return not checks.same(*batches)


def _digests() -> dict[str, str]:
    batches = {name: MADE[name](MADE[name].EXAMPLES[0]).batch(RandomStreams(5), "valid", 2, 4) for name in MADE}
    return {
        name: hashlib.sha256(b"".join(part.tobytes() for part in batch[:3])).hexdigest()  # type: ignore[union-attr]
        for name, batch in batches.items()
    }


def test_the_same_in_another_process() -> None:
    code = "from conformance.made.test_made import _digests; print(_digests())"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert run.stdout.strip() == str(_digests())


def test_points_that_need_another_run() -> None:
    problem = MADE["memorise"](MADE["memorise"].EXAMPLES[0])
    with pytest.raises(UsageError, match="learned by heart"):
        problem.at(book=7)
    with pytest.raises(UsageError, match="changes the symbols"):
        problem.at(vocab=7)


def test_a_range_is_drawn_once_a_batch() -> None:
    problem = MADE["group"](GroupConfig(kind="Z2", length=(1, 9)))
    times = {problem.batch(RandomStreams(1), "train", number, 3).inputs.shape[1] for number in range(99)}
    assert times == set(range(2, 11))
    problem = MADE["group"](GroupConfig(kind="Z2", length=(1, 2)))
    made = (problem.batch(RandomStreams(1), "valid", number, 9, apart=True) for number in range(20))
    with pytest.raises(UsageError, match="would be empty"):
        list(made)


def test_apart_by_number_alone() -> None:
    problem = MADE["copy"](MADE["copy"].EXAMPLES[0])
    first = problem.batch(RandomStreams(1), "valid", 4, 9, apart=True)
    problem.batch(RandomStreams(1), "valid", 5, 9, apart=True)
    assert np.array_equal(first.inputs, problem.batch(RandomStreams(1), "valid", 4, 9, apart=True).inputs)
    assert len(first.inputs) == 9
