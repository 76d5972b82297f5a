"""Shares, ratios and quartiles from given numbers."""

import pytest

from unrolled.bench.figures import paired_ratio, share, spread


def test_spread() -> None:
    assert spread([4.0, 1.0, 2.0, 3.0, 5.0]).model_dump() == {"median": 3.0, "lower": 2.0, "upper": 4.0}
    assert spread([2.0, 4.0]).model_dump() == {"median": 3.0, "lower": 2.5, "upper": 3.5}
    assert spread([7.0]).model_dump() == {"median": 7.0, "lower": 7.0, "upper": 7.0}


def test_share_is_of_the_mean_of_both_peaks() -> None:
    assert share(amount=600.0, seconds=2.0, before=900.0, after=300.0) == pytest.approx(0.5)


def test_paired_ratio_pairs_repetitions() -> None:
    # twice as fast in every repetition, though the medians of the times alone would say otherwise
    own, other = [1.0, 8.0, 2.0], [2.0, 16.0, 4.0]
    assert paired_ratio(own, other) == pytest.approx(2.0)
    assert paired_ratio(own, list(reversed(other))) == pytest.approx(2.0)
    assert paired_ratio([1.0, 1.0, 1.0], [3.0, 1.0, 2.0]) == pytest.approx(2.0)
    # 30 operations in the time of 20
    assert paired_ratio([1.0], [1.0], 30, 20) == pytest.approx(1.5)
    with pytest.raises(ValueError):
        paired_ratio([1.0], [1.0, 2.0])
