"""Seeds that show a difference: the table of plans, and what the text leaves."""

from itertools import pairwise

import numpy as np
import pytest

from compare.made import crossed
from unrolled.compare.check import power_of_plan
from unrolled.compare.plan import PlanConfig
from unrolled.compare.power import POWER, power_at, power_of, seeds_needed, seeds_to_decide
from unrolled.compare.statistics import crossed_difference

stats = pytest.importorskip("scipy.stats", reason="scipy is not installed (the extra report)")

SIZES = (0.02, 0.01, 0.005, 0.003)


@pytest.mark.parametrize(
    ("contrasts", "correlation", "seeds"),
    [(1, None, [3, 7, 23, 62]), (9, None, [5, 12, 39, 103]), (1, 0.5, [3, 5, 13, 33])],
)
def test_seeds_for_characters(contrasts: int, correlation: float | None, seeds: list[int]) -> None:
    assert [seeds_needed(size, 0.0059, contrasts, correlation) for size in SIZES] == seeds


def test_power_is_that_of_the_noncentral_t() -> None:
    for seeds, size in ((3, 0.02), (7, 0.01), (23, 0.005), (12, 0.003)):
        freedom, away = 2 * seeds - 2, size / (0.0059 * (2 / seeds) ** 0.5)
        least = stats.t.ppf(0.975, freedom)
        wanted = stats.nct.sf(least, freedom, away) + stats.nct.cdf(-least, freedom, away)
        assert power_at(size, 0.0059, seeds) == pytest.approx(wanted, abs=5e-4)


def test_power_grows_and_needed_is_the_first_that_does() -> None:
    seeds = seeds_needed(0.005, 0.0059, 4)
    assert seeds is not None
    assert power_at(0.005, 0.0059, seeds, 4) >= POWER > power_at(0.005, 0.0059, seeds - 1, 4)
    values = [power_at(0.0005 * 1.3**k, 0.0059, 2, 100) for k in range(60)]
    assert all(0 <= a <= b <= 1 for a, b in pairwise(values))
    assert power_at(0.0, 0.0059, 5) == pytest.approx(0.05, abs=1e-3)
    assert seeds_needed(1e-7, 1.0) is None
    assert seeds_needed(0.1, 0.0) == 2


def _found(seeds: int, shift: float = 0.0, blocks: np.ndarray | None = None):
    rng = np.random.default_rng(3)
    return crossed_difference(crossed(rng, seeds, shift, blocks), crossed(rng, seeds, 0.0, blocks))


def test_power_of_what_was_found() -> None:
    found = _found(12, blocks=np.zeros(2000))
    sd, smallest = (found.v_seed * 12) ** 0.5, 0.005
    assert power_of(found, smallest) == pytest.approx(power_at(smallest, sd, 12, 1, 0.5), abs=0.02)
    alone, among = power_of(found, smallest), power_of(found, smallest, 20)
    assert alone is not None
    assert among is not None
    assert among < alone
    assert power_of(_found(1), smallest) is None


def test_seeds_that_decide() -> None:
    found = _found(4, 0.001, np.zeros(2000))
    sd = (found.v_seed * 4) ** 0.5
    least = seeds_needed(0.005, sd, 3, 0.5)
    decided = seeds_to_decide(found, 0.005, 3)
    assert least is not None
    assert decided is not None
    assert decided >= least - 1
    # a difference just as large as the smallest that matters is decided late
    late = seeds_to_decide(found, abs(found.difference), 3)
    assert late is not None
    assert late > decided
    unasked = seeds_to_decide(found, None)
    assert unasked == pytest.approx(seeds_needed(abs(found.difference), sd, 1, 0.5), abs=1)
    assert seeds_to_decide(_found(1), 0.005) is None


def test_a_short_text_is_not_mended_by_seeds() -> None:
    own = crossed_difference(crossed(np.random.default_rng(1), 5), crossed(np.random.default_rng(2), 5))
    assert own.text_variance > 0
    assert seeds_to_decide(own, 0.0005) is None


def test_a_plan_of_several_corpora_has_a_row_for_each_and_one_for_all() -> None:
    """Holm's method corrects for all of them."""
    values = {
        "kind": "unrolled plan", "title": "t", "recipe": "default", "seeds": [1, 2, 3],
        "match": {"budget": {"tokens": 100}}, "system": [{"name": "a"}, {"name": "b", "set": ["model.width=5"]}],
        "contrast": [{"name": "a - b", "better": "a", "than": "b", "smallest": 0.01}],
    }  # fmt: skip
    (one,) = power_of_plan(PlanConfig.parse(values), 0.006)
    assert one.needed == seeds_needed(0.01, 0.006, 1)
    (two,) = power_of_plan(PlanConfig.parse({**values, "corpora": ["ptb-char", "text8"]}), 0.006)
    assert two.needed == seeds_needed(0.01, 0.006, 3)
    assert (two.needed or 0) > (one.needed or 0) > 0
