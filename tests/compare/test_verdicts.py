"""Verdicts on runs with planted differences; what marks them; which rows there are."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from compare.made import BLOCK_SD, BLOCKS, contrast, crossed, diverged, found, system
from unrolled.compare.results import Found, SystemFound
from unrolled.compare.statistics import holm
from unrolled.compare.verdicts import judge, missing_runs

pytest.importorskip("scipy", reason="scipy is not installed (the extra report)")

SMALLEST = 0.01


def pair(shift: float, seeds: int = 8, seed: int = 0, corpus: str = "letters") -> list[SystemFound]:
    """a lies ``shift`` bits below b; they read the same text."""
    rng = np.random.default_rng(seed)
    blocks = BLOCK_SD * rng.standard_normal(BLOCKS)
    return [
        system(name, crossed(rng, seeds, by, blocks), corpus) for name, by in (("a", 0.0), ("b", shift), ("c", shift))
    ]


def verdicts(shift: float, plans: int = 40) -> list[str]:
    return [judge(found(pair(shift, seed=i)[:2], [contrast()]))[0][0].verdict for i in range(plans)]


def test_planted_differences() -> None:
    """With 8 seeds of sd 0.004: none is equivalent, twice the smallest is better or worse, half of it not clear."""
    none, half, twice, against = (verdicts(shift * SMALLEST) for shift in (0, 0.5, 2, -2))
    assert none.count("better") + none.count("worse") <= 4
    assert none.count("equivalent") >= 34
    assert set(half) <= {"better", "equivalent", "undecided"}
    assert half.count("undecided") >= 5
    assert twice == ["better"] * 40
    assert against == ["worse"] * 40


def test_the_verdict_follows_the_adjusted_p_and_the_sign() -> None:
    contrasts = [contrast("a - b"), contrast("a - c", "a", "c"), contrast("b - c", None, "c", first="b", smallest=None)]
    rows, others = judge(found(pair(0.004, 6, 3), contrasts))
    assert [row.p_holm for row in rows] == holm([row.found.p if row.found else None for row in rows])
    for row in rows:
        assert row.found is not None
        assert row.p_holm is not None
        decided = row.p_holm < 0.05
        assert (row.verdict in ("better", "worse")) == decided
        assert not decided or (row.verdict == "better") == (row.found.difference < 0)
    assert others == [], "all pairs are planned"
    assert rows[2].power is None
    assert [row.expected for row in rows] == [True, True, False]


def test_more_contrasts_make_it_harder() -> None:
    systems = pair(0.005, 5, 1)
    alone = judge(found(systems, [contrast()]))[0][0]
    among = judge(found(systems, [contrast(), *(contrast(f"n{i}", "b", "c") for i in range(8))]))[0][0]
    assert alone.found == among.found
    assert alone.p_holm is not None
    assert among.p_holm == pytest.approx(min(1, 9 * alone.p_holm))
    assert alone.power is not None
    assert among.power is not None
    assert among.power < alone.power


def test_equal_systems_are_seldom_called_different() -> None:
    """Of 25 plans with six contrasts of four equal systems, at three seeds."""
    rng, wrong = np.random.default_rng(11), 0
    contrasts = [contrast(one + two, one, two) for one, two in combinations("abcd", 2)]
    for _ in range(25):
        blocks = BLOCK_SD * rng.standard_normal(BLOCKS)
        rows, _ = judge(found([system(name, crossed(rng, 3, 0.0, blocks)) for name in "abcd"], contrasts))
        wrong += any(row.verdict in ("better", "worse") for row in rows)
    assert wrong <= 4


def test_what_was_not_planned_has_a_table_of_its_own() -> None:
    systems = [*pair(0.02), *pair(0.02, corpus="words", seed=1)]
    scores = {(one.name, one.corpus, run.seed): 1.4 for one in systems for run in one.runs}
    told = found(systems, [contrast(corpora=["letters"])], test=scores)
    rows, others = judge(told)
    assert [(row.name, row.corpus, row.decides) for row in rows] == [("a - b", "letters", True)]
    assert [(row.name, row.corpus, row.split) for row in others] == [
        ("a against c", "letters", "valid"), ("b against c", "letters", "valid"), ("a against b", "words", "valid"),
        ("a against c", "words", "valid"), ("b against c", "words", "valid"), ("a - b", "letters", "test"),
    ]  # fmt: skip
    assert not any(row.registered or row.decides or row.seeds_to_decide for row in others)
    assert [row.p_holm for row in others] == holm([row.found.p if row.found else None for row in others])
    assert others[-1].found is not None
    assert others[-1].found.covers == "seeds"


def test_several_corpora_are_pooled_and_the_pooled_row_decides() -> None:
    systems = [*pair(0.02)[:2], *pair(0.0, corpus="words", seed=1)[:2]]
    rows, _ = judge(found(systems, [contrast()]))
    assert [(row.corpus, row.decides) for row in rows] == [
        ("letters", False), ("words", False), ("letters, words pooled", True),
    ]  # fmt: skip
    differences = [row.found.difference for row in rows if row.found]
    assert differences[2] == pytest.approx((differences[0] + differences[1]) / 2)
    assert rows[0].verdict == "better"
    # a seed that one corpus lacks is left out of the pooled row alone
    short = [*systems[:3], replace(systems[3], runs=systems[3].runs[:5])]
    again, _ = judge(found(short, [contrast()]))
    assert [row.found.counts for row in again if row.found] == [(8, 8), (8, 5), (8, 5)]


def test_figures_without_blocks() -> None:
    def with_figure(one: SystemFound, value: float) -> SystemFound:
        runs = [replace(run, figures={"excess": value + 0.01 * run.seed}) for run in one.runs]
        return replace(one, runs=tuple(runs))

    a, b, _ = pair(0.02)
    told = found([with_figure(a, 1.0), with_figure(b, 2.0)], [
        contrast("train", figure="train_nats"), contrast("recovery", None, "b", first="a", figure="excess"),
        contrast("absent", figure="nothing"),
    ])  # fmt: skip
    train, recovery, absent = judge(told)[0]
    assert train.found is not None
    means = [np.mean([run.train_nats for run in one.runs if run.train_nats]) / math.log(2) for one in (a, b)]
    assert train.found.difference == pytest.approx(means[0] - means[1])
    assert (train.unit, train.found.covers) == ("bits per character", "seeds")
    assert recovery.found is not None
    assert recovery.found.difference == pytest.approx(-1.0)
    assert (recovery.unit, recovery.found.covers, recovery.verdict) == ("excess", "seeds", "better")
    assert (absent.found, absent.verdict, absent.p_holm) == (None, "undecided", None)


def test_losses_without_blocks_are_compared_over_seeds() -> None:
    a, b, _ = pair(0.02)
    bare = replace(b, runs=tuple(replace(run, blocks=np.zeros(0)) for run in b.runs))
    row = judge(found([a, bare], [contrast()]))[0][0]
    with_blocks = judge(found([a, b], [contrast()]))[0][0]
    assert row.found is not None
    assert with_blocks.found is not None
    assert row.found.covers == "seeds"
    assert row.found.difference == pytest.approx(with_blocks.found.difference), "the last block counts by its tokens"


def test_the_last_block_is_whole_where_nothing_is_known() -> None:
    told = found(pair(0.02)[:2], [contrast()])
    rows = [judge(replace(told, split_tokens=tokens))[0][0] for tokens in ({}, {"letters": 7}, told.split_tokens)]
    sizes = [row.found.difference for row in rows if row.found]
    assert sizes[0] == sizes[1] != sizes[2]


def test_diverged_runs_mark_the_verdict() -> None:
    a, b, _ = pair(0.02)
    lost = replace(b, runs=(*b.runs[:6], diverged(7), diverged(8)), at_edge=True)
    row = judge(found([a, lost], [contrast()]))[0][0]
    assert row.verdict == "better"
    assert row.marks == (
        "2 of 8 runs of b diverged and are left out",
        "the value chosen for b is the least or largest that was tried",
    )
    assert row.found is not None
    assert (row.found.counts, row.found.paired, row.bootstrap) == ((8, 6), False, None)
    gone = replace(b, runs=tuple(diverged(seed) for seed in range(1, 9)))
    row = judge(found([a, gone], [contrast()]))[0][0]
    assert (row.found, row.verdict, row.marks) == (None, "undecided", ("8 of 8 runs of b diverged and are left out",))


def test_runs_that_are_still_to_come() -> None:
    a, b, _ = pair(0.02, 4)
    told = found([a, replace(b, runs=b.runs[:3])], [contrast()], seeds=6)
    assert missing_runs(told) == 5
    row = judge(told)[0][0]
    assert row.marks == ("2 of 6 runs of a have not ended", "3 of 6 runs of b have not ended")
    assert missing_runs(found([a, b])) == 0


@pytest.mark.parametrize("seeds", [0, 1])
def test_with_one_seed_or_none_nothing_is_decided(seeds: int) -> None:
    told: Found = found(pair(0.5, seeds)[:2], [contrast()], seeds=3)
    row = judge(told)[0][0]
    assert (row.verdict, row.p_holm, row.seeds_to_decide, row.power) == ("undecided", None, None, None)
    assert (row.found is None) == (seeds == 0)


def test_the_bootstrap_rides_along_from_ten_seeds() -> None:
    for seeds, there in ((9, False), (10, True)):
        row = judge(found(pair(0.02, seeds)[:2], [contrast()]))[0][0]
        assert (row.bootstrap is not None) == there
