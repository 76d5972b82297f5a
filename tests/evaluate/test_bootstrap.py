"""Block bootstrap: sums by block, intervals that cover, and paired differences."""

import numpy as np
import pytest

from unrolled.evaluate.bootstrap import BLOCK, BlockSums, paired_difference


def test_sums_do_not_depend_on_the_windows() -> None:
    values = np.random.default_rng(0).normal(size=(3, 12_345))
    intervals = []
    for window in (1000, 700, 12_345, 3001):
        sums = BlockSums(3, 12_345)
        for low in range(0, 12_345, window):
            sums.add(low, values[:, low : low + window])
        intervals.append(sums.interval())
    assert intervals[0] is not None
    for one in intervals[1:]:
        assert one == pytest.approx(intervals[0], rel=1e-12)
    low, high = intervals[0]
    assert low < values.mean() < high


def test_a_short_text_has_no_interval_and_a_long_one_few_blocks() -> None:
    short = BlockSums(1, 9 * BLOCK)
    short.add(0, np.ones((1, 9 * BLOCK)))
    assert short.interval() is None
    assert paired_difference(np.ones(500), np.zeros(500)).interval is None
    assert BlockSums(1, 10**9).size == 10**6


@pytest.mark.parametrize("trials", [70, pytest.param(300, marks=pytest.mark.slow)])
def test_the_interval_covers_the_truth_as_often_as_it_says(trials: int) -> None:
    """Losses that hang together over hundreds of tokens: 95 % intervals by block cover, by token they would not."""
    rng, covered, narrow, n = np.random.default_rng(1), 0, 0, 60_000
    for _ in range(trials):
        values = np.repeat(rng.normal(size=n // 200), 200) + rng.normal(size=n)
        sums = BlockSums(1, n)
        sums.add(0, values[None])
        interval = sums.interval()
        assert interval is not None
        covered += interval[0] < 0 < interval[1]
        half = 1.96 * values.std() / np.sqrt(n)
        narrow += abs(values.mean()) < half
    assert 0.88 <= covered / trials <= 0.99
    assert narrow / trials < 0.5


def test_a_pair_that_differs_little_but_always_is_told_apart() -> None:
    rng = np.random.default_rng(2)
    common = 5 + rng.normal(size=40_000)
    better = common - 0.01 + 0.02 * rng.normal(size=40_000)
    found = paired_difference(better, common)
    assert found.nats_per_token == pytest.approx(-0.01, abs=5e-4)
    assert found.interval is not None
    assert found.interval[0] < -0.01 < found.interval[1] < 0
    assert found.p_value == pytest.approx(2 / 4000)
    assert found.verdict("a", "b").startswith("a is better than b: 1.0")
    assert paired_difference(common, better).verdict("b", "a").startswith("a is better than b: 1.0")


def test_a_pair_that_does_not_differ_is_not() -> None:
    rng = np.random.default_rng(3)
    found = paired_difference(rng.normal(size=40_000), rng.normal(size=40_000))
    assert found.interval is not None
    assert found.interval[0] < 0 < found.interval[1]
    assert found.p_value is not None
    assert found.p_value > 0.05
    assert found.verdict("a", "b").startswith("no clear difference")
    assert paired_difference(np.ones(20), np.zeros(20)).verdict("a", "b").endswith("how sure that is.")
