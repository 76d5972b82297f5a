"""The largest number whose size fits."""

from collections.abc import Callable

import pytest

from unrolled.model.fit import largest

SIZES = (
    lambda n: 3 * n * n + 7 * n + 100,
    lambda n: 11 * n,
    lambda n: 2**n,
    lambda n: n**3,
    lambda n: 5 + n // 7,
)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("most", [110, 111, 1000, 99_999, 10**6])
def test_the_largest_number_within_a_budget(size: Callable[[int], int], most: int) -> None:
    found = largest(size, most, 1 << 26)
    assert found is not None
    assert size(found) <= most < size(found + 1)


def test_a_size_that_does_not_grow() -> None:
    assert largest(lambda n: 5, 10, 1 << 20) is None


def test_few_sizes_are_looked_at() -> None:
    asked = []

    def size(n: int) -> int:
        asked.append(n)
        return 24 * n * n + 60 * n

    assert largest(size, 1_000_000, 1 << 24) == 202
    assert len(asked) <= 11
