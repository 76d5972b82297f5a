"""Crossed seeds and blocks: the formulas, what intervals cover, Holm, and what little can be said of little."""

import importlib
import math

import numpy as np
import pytest

from compare.made import BLOCKS, LAST, crossed
from unrolled.compare.quantiles import critical, satterthwaite, tail_of
from unrolled.compare.statistics import CrossedDifference, crossed_bootstrap, crossed_difference, holm
from unrolled.core.errors import UnrolledError

stats = pytest.importorskip("scipy.stats", reason="scipy is not installed (the extra report)")

TOKENS = np.array([1000.0] * (BLOCKS - 1) + [LAST])


def two(seeds: int = 5, shift: float = 0.0, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    return crossed(rng, seeds, shift), crossed(rng, seeds)


def test_the_components_are_those_of_crossed_random_effects() -> None:
    first, second = two()
    d = np.array(first) - np.array(second)
    n, b = d.shape
    rows, columns = d.mean(1), d.mean(0)
    rest = d - rows[:, None] - columns + d.mean()
    found = crossed_difference(first, second)
    assert found.difference == pytest.approx(d.mean())
    assert found.v_seed == pytest.approx(rows.var(ddof=1) / n)
    assert found.v_block == pytest.approx(columns.var(ddof=1) / b)
    assert found.v_rest == pytest.approx((rest**2).sum() / (n - 1) / (b - 1) / n / b)
    expected = max(found.v_seed + found.v_block - found.v_rest, found.v_seed, found.v_block)
    assert found.variance == pytest.approx(expected)
    assert found.shares == [(found.v_seed, n - 1), (pytest.approx(expected - found.v_seed), b - 1)]
    assert found.freedom == pytest.approx(satterthwaite(found.shares))
    assert (found.covers, found.paired, found.counts, found.blocks) == ("seeds and text", True, (5, 5), BLOCKS)


def test_a_short_last_block_counts_by_its_tokens() -> None:
    first, second = two()
    found = crossed_difference(first, second, tokens=TOKENS)
    means = [[row @ TOKENS / TOKENS.sum() for row in side] for side in (first, second)]
    assert found.difference == pytest.approx(np.mean(means[0]) - np.mean(means[1]))
    assert found.v_seed == pytest.approx(np.var(np.array(means[0]) - means[1], ddof=1) / 5)
    assert found.difference != pytest.approx(crossed_difference(first, second).difference, abs=1e-9)
    # a last block without weight is as good as none
    light = crossed_difference(first, second, tokens=np.array([1000.0] * (BLOCKS - 1) + [1e-9]))
    without = crossed_difference([row[:-1] for row in first], [row[:-1] for row in second])
    assert light.difference == pytest.approx(without.difference)
    assert light.variance == pytest.approx(without.variance, rel=0.01)


def test_the_first_less_the_second_whatever_the_order_of_seeds() -> None:
    first, second = two(3, 0.05)
    found = crossed_difference(first, second, [1, 2, 3], [1, 2, 3])
    mixed = crossed_difference(first[::-1], second, [3, 2, 1], [1, 2, 3])
    assert mixed.v_seed == pytest.approx(found.v_seed)
    assert mixed.correlation == pytest.approx(found.correlation)
    assert found.difference > 0
    assert (found.seeds_better, found.common) == (0, 3)
    other = crossed_difference(second, first)
    assert (other.difference, other.seeds_better) == (pytest.approx(-found.difference), 3)
    means = np.array(first).mean(1), np.array(second).mean(1)
    assert found.sd == (pytest.approx(means[0].std(ddof=1)), pytest.approx(means[1].std(ddof=1)))
    assert found.correlation == pytest.approx(np.corrcoef(*means)[0, 1])


def test_without_blocks_it_is_students_t() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((2, 6))
    paired = crossed_difference([np.array([v]) for v in x], [np.array([v]) for v in y])
    told = stats.ttest_rel(x, y)
    assert paired.covers == "seeds"
    assert (paired.t, paired.p) == (pytest.approx(told.statistic), pytest.approx(told.pvalue))
    assert paired.interval() == pytest.approx(tuple(told.confidence_interval()))
    welch = crossed_difference([np.array([v]) for v in x], [np.array([v]) for v in y[:4]])
    told = stats.ttest_ind(x, y[:4], equal_var=False)
    assert (welch.paired, welch.counts) == (False, (6, 4))
    assert (welch.t, welch.p) == (pytest.approx(told.statistic), pytest.approx(told.pvalue))
    assert welch.freedom == pytest.approx(told.df)


def test_unequal_seeds_add_the_blocks_to_welch() -> None:
    first, second = two(6)
    found = crossed_difference(first, second[:4], range(1, 7), range(3, 7))
    means = np.array(first).mean(1), np.array(second[:4]).mean(1)
    assert found.v_seed == pytest.approx(means[0].var(ddof=1) / 6 + means[1].var(ddof=1) / 4)
    across = np.mean(first, 0) - np.mean(second[:4], 0)
    assert found.v_block == pytest.approx(across.var(ddof=1) / BLOCKS)
    assert 0 < found.v_rest < found.v_block
    assert (found.common, found.covers) == (4, "seeds and text")


@pytest.mark.parametrize("own", [False, True], ids=["the text moves both alike", "and each in its own way"])
@pytest.mark.parametrize("seeds", [(3, 3), (12, 12), (4, 3), (12, 5)])
def test_intervals_cover(seeds: tuple[int, int], own: bool) -> None:
    """Of 400 plans. Those of unequal lists may be wider than need be."""
    rng, hits = np.random.default_rng(5), 0
    for _ in range(400):
        shared = None if own else 0.02 * rng.standard_normal(BLOCKS)
        found = crossed_difference(crossed(rng, seeds[0], 0.01, shared), crossed(rng, seeds[1], 0.0, shared))
        low, high = found.interval() or (0.0, 0.0)
        hits += low <= 0.01 <= high
    assert 0.92 <= hits / 400 <= (0.98 if seeds[0] == seeds[1] else 1)


def test_few_seeds_and_a_little_of_the_text_are_covered_at_strict_levels_too() -> None:
    """Where one t with Satterthwaite's degrees of freedom covers 97.3 % of 99.5."""
    rng, hits, plain = np.random.default_rng(1), 0, 0
    for _ in range(4000):
        shares = [(rng.chisquare(2) / 2, 2.0), (0.1 * rng.chisquare(199) / 199, 199.0)]
        away = abs(rng.standard_normal()) * math.sqrt(1.1 / sum(share for share, _ in shares))
        hits += away <= critical(shares, 0.0025)
        plain += away <= critical([(1.0, satterthwaite(shares))], 0.0025)
    assert hits / 4000 > 0.985
    assert plain / 4000 < 0.98


@pytest.mark.parametrize("shares", [[(1.0, 2.0)], [(1.0, 2.0), (0.3, 400.0)], [(0.2, 11.0), (3.0, 39.0)]])
def test_tails_undo_critical_values(shares: list[tuple[float, float]]) -> None:
    for tail in (0.4, 0.05, 0.025, 1e-4, 1e-9):
        assert tail_of(shares, critical(shares, tail)) == pytest.approx(tail, rel=1e-6)
    assert tail_of(shares, 0.0) == 0.5
    assert tail_of(shares, math.inf) == 0.0
    assert critical([(1.0, 7.0)], 0.025) == pytest.approx(stats.t.ppf(0.975, 7))


def test_equivalence_is_the_narrower_interval_inside() -> None:
    for seed in range(30):
        found = crossed_difference(*two(4, 0.002, seed))
        low, high = found.interval(0.9) or (0.0, 0.0)
        for smallest in (0.002, 0.005, 0.008, 0.02):
            p = found.equivalence_p(smallest)
            assert p is not None
            assert (p < 0.05) == (-smallest < low and high < smallest)


def test_a_single_seed_says_something_of_the_text_alone() -> None:
    first, second = two(1)
    found = crossed_difference(first, second)
    d = first[0] - second[0]
    assert (found.covers, found.p, found.equivalence_p(1.0), found.seed_variance) == ("text", None, None, None)
    half = stats.t.ppf(0.975, BLOCKS - 1) * d.std(ddof=1) / math.sqrt(BLOCKS)
    assert found.interval() == pytest.approx((d.mean() - half, d.mean() + half))
    alone = crossed_difference([np.array([1.0])], [np.array([2.0])])
    assert (alone.difference, alone.covers, alone.interval(), alone.t, alone.p) == (-1.0, "nothing", None, None, None)
    assert alone.freedom is None
    assert crossed_difference(first, two(3)[1]).covers == "text", "one seed of one system is as little"


def test_equal_systems_and_constant_differences() -> None:
    first, _ = two(3)
    same = crossed_difference(first, first)
    assert (same.difference, same.t, same.p, same.interval()) == (0.0, 0.0, 1.0, (0.0, 0.0))
    assert same.equivalence_p(0.001) == 0.0
    whole = [np.arange(4.0), np.arange(4.0) + 1, np.arange(4.0) + 3]
    shifted = crossed_difference([row + 1 for row in whole], whole)
    assert (shifted.t, shifted.p, shifted.interval()) == (math.inf, 0.0, (1.0, 1.0))
    assert shifted.equivalence_p(0.5) == 1.0


def test_corpora_count_alike_and_each_keeps_its_own_mean() -> None:
    """A corpus on which all is harder adds nothing to the blocks' variance."""
    first, second = two(4)
    corpora = np.array([0] * 30 + [1] * (BLOCKS - 30))
    pooled = crossed_difference(first, second, corpora=corpora)
    parts = [
        crossed_difference([row[corpora == c] for row in first], [row[corpora == c] for row in second]) for c in (0, 1)
    ]
    assert pooled.difference == pytest.approx(sum(part.difference for part in parts) / 2)
    assert pooled.v_block == pytest.approx(sum(part.v_block for part in parts) / 4)
    assert pooled.v_rest == pytest.approx(sum(part.v_rest for part in parts) / 4)
    lifted = crossed_difference([row + 5 * corpora for row in first], second, corpora=corpora)
    assert lifted.v_block == pytest.approx(pooled.v_block)


def test_the_bootstrap_agrees_from_ten_seeds_on() -> None:
    first, second = two(12)
    found, drawn = crossed_difference(first, second, tokens=TOKENS), crossed_bootstrap(first, second, TOKENS)
    interval = found.interval()
    assert drawn is not None
    assert interval is not None
    assert drawn == pytest.approx(interval, abs=0.35 * (interval[1] - interval[0]))
    assert drawn == crossed_bootstrap(first, second, TOKENS), "it is drawn alike every time"
    assert crossed_bootstrap(first[:9], second[:9]) is None
    assert crossed_bootstrap([row[:9] for row in first], [row[:9] for row in second]) is None


def test_holm_by_hand() -> None:
    # as in the table of multipletests of statsmodels for these
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2, 0.9, 0.9]) == pytest.approx([0.6, 1.0, 1.0])
    assert holm([0.02, None]) == [0.04, None], "a test that is still to come counts"
    assert holm([]) == []


def test_holm_rejects_as_its_steps_do() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = (rng.random(7) ** 3).tolist()
        adjusted = [p for p in holm(values) if p is not None]
        rejected = set()
        for step, i in enumerate(np.argsort(values)):
            if values[i] * (7 - step) >= 0.05:
                break
            rejected.add(int(i))
        assert {i for i, p in enumerate(adjusted) if p < 0.05} == rejected


def test_texts_of_other_lengths_are_refused() -> None:
    first, second = two(2)
    with pytest.raises(UnrolledError, match="differ in number, so they read different texts; score them again"):
        crossed_difference(first, [row[:-1] for row in second])
    with pytest.raises(UnrolledError, match="no equal numbers of blocks; score them again"):
        crossed_difference([first[0], first[1][:-1]], second)
    with pytest.raises(UnrolledError, match="no equal numbers of blocks"):
        crossed_difference([], second)


def test_without_scipy_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    found = crossed_difference(*two(3))

    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(UnrolledError) as raised:
        found.interval()
    assert str(raised.value) == (
        'the statistics of a comparison need scipy; install it with: pip install "unrolled[report]"'
    )


def test_the_variance_is_never_below_its_larger_part() -> None:
    rng = np.random.default_rng(9)
    for _ in range(50):
        rest = rng.standard_normal((2, 3, 12))
        found: CrossedDifference = crossed_difference(list(rest[0]), list(rest[1]))
        assert found.variance >= max(found.v_seed, found.v_block)
        assert found.text_variance >= 0
