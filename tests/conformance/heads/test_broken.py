"""Every check can fail: on a head that is broken in the way it looks for."""

import pytest

from unrolled.model.heads import Head

from .broken import BROKEN, Sound
from .build import Case
from .checks import CHECKS


def test_each_check_has_a_broken_head() -> None:
    assert set(BROKEN) == set(CHECKS)


@pytest.mark.parametrize(
    ("name", "head"),
    [pytest.param(name, cls, id=f"{name}-{cls.__name__}") for name, broken in BROKEN.items() for cls in broken],
)
def test_check_notices(name: str, head: type[Head]) -> None:
    with pytest.raises(AssertionError):
        CHECKS[name](Case(head, head.EXAMPLES[0]))


@pytest.mark.parametrize("name", CHECKS)
def test_a_new_sound_head_passes(name: str) -> None:
    CHECKS[name](Case(Sound, Sound.EXAMPLES[0]))
