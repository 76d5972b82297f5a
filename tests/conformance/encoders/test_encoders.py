"""The whole suite over every encoder of the table, with each of its example configs; and that every check can fail."""

from collections.abc import Callable

import pytest

from conformance.cells.build import Case, MakeCell
from unrolled.cells import CELLS, ENCODERS
from unrolled.cells.encoders.base import EncoderCell
from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel, ModelConfig

from .broken import BROKEN, Sound
from .checks import CHECKS, SHARED

CASES = [Case(name, index) for name in ENCODERS for index in range(len(ENCODERS[name].EXAMPLES))]


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_encoder(case: Case, check: Callable[[MakeCell], None]) -> None:
    check(case)


@pytest.mark.parametrize("name", list(ENCODERS))
def test_row_of_the_table(name: str) -> None:
    cls = ENCODERS[name]
    assert issubclass(cls, EncoderCell)
    assert cls.EXAMPLES
    assert cls.__doc__
    assert cls.EQUATION
    assert CELLS.parse(name).name == name, "every option of an encoder has a default"
    for config in cls.EXAMPLES:
        assert CELLS.parse(config.model_dump(mode="json")) == config
    with pytest.raises(UsageError, match=f"a layer of {name} reads whole rows"):
        LanguageModel(ModelConfig.model_validate({"cell": name, "width": 16}), 5)


def test_each_check_has_a_broken_encoder() -> None:
    assert set(BROKEN) | set(SHARED) == set(CHECKS)


@pytest.mark.parametrize(
    ("name", "cls"),
    [pytest.param(name, cls, id=f"{name}-{cls.__name__}") for name, broken in BROKEN.items() for cls in broken],
)
def test_check_notices(name: str, cls: type[EncoderCell]) -> None:
    with pytest.raises((AssertionError, RuntimeError, pytest.fail.Exception)):
        CHECKS[name](lambda in_width, width: cls(in_width, width, cls.EXAMPLES[0]))


@pytest.mark.parametrize("name", CHECKS)
def test_a_new_sound_encoder_passes(name: str) -> None:
    if name not in ("config", "rules"):  # which ask the table
        CHECKS[name](lambda in_width, width: Sound(in_width, width, Sound.EXAMPLES[0]))
