"""repeat-n by hand."""

import pytest

from unrolled.generate import repeated, repeats


def test_by_hand() -> None:
    tokens = [0, 1, 0, 1, 0, 1, 2]  # a b a b a b c
    assert repeated(tokens, 1) == pytest.approx(4 / 7)
    assert repeated(tokens, 2) == pytest.approx(3 / 6), "ab ba ab ba ab bc: three of six were there"
    assert repeated(tokens, 3) == pytest.approx(2 / 5), "aba bab aba bab abc"
    assert repeated(tokens, 7) == 0
    assert repeated(tokens, 8) is None
    assert repeated([], 1) is None


@pytest.mark.parametrize("n", [1, 2, 3])
def test_as_a_loop_counts_it(n: int) -> None:
    tokens, seen, again, total = [i * i % 7 % 4 for i in range(40)], [], 0, 0
    for start in range(len(tokens) - n + 1):
        gram = tokens[start : start + n]
        again, total = again + (gram in seen), total + 1
        seen.append(gram)
    assert repeated(tokens, n) == pytest.approx(again / total)


def test_by_n() -> None:
    assert repeats([5, 5, 5]) == {"1": pytest.approx(2 / 3), "2": 0.5, "3": 0.0, "4": None}
