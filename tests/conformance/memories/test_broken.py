"""Every check can fail: on a memory that is broken in the way it looks for."""

import pytest
from torch.utils.checkpoint import CheckpointError

from unrolled.model.memory import Memory

from .broken import BROKEN, Sound
from .build import Case
from .checks import CHECKS


def test_each_check_has_a_broken_memory() -> None:
    assert set(BROKEN) == set(CHECKS)


@pytest.mark.parametrize(
    ("name", "memory"),
    [pytest.param(name, cls, id=f"{name}-{cls.__name__}") for name, broken in BROKEN.items() for cls in broken],
)
def test_check_notices(name: str, memory: type[Memory]) -> None:
    # a memory that computes something else the second time is noticed by torch itself where shapes differ
    with pytest.raises((AssertionError, CheckpointError)):
        CHECKS[name](Case(memory, memory.EXAMPLES[0]))


@pytest.mark.parametrize("name", CHECKS)
def test_a_new_sound_memory_passes(name: str) -> None:
    CHECKS[name](Case(Sound, Sound.EXAMPLES[0]))
