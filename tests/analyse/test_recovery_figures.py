"""Figures read off curves that are known, intervals that cover, and paired differences."""

from typing import Any

import numpy as np
import pytest

from unrolled.analyse import Corruption, Recovery, RecoveryConfig, recovery_differences, summarise_recovery
from unrolled.analyse.recovery.figures import labels, why_unpaired


def made(excess: np.ndarray, correlation: np.ndarray | None = None, name: str = "a", **changes: Any) -> Recovery:
    """A measurement with these figures (P, lags + 1), the same for every site."""
    likeness = np.ones_like(excess) if correlation is None else correlation
    sites = {"output": likeness, "layer 1": likeness}
    config = RecoveryConfig.parse({"places": len(excess), "lags": excess.shape[1] - 1, **changes})
    provenance = {"text_sha256": "t", "tokenizer": "x"}
    return Recovery(name, config, Corruption(np.arange(len(excess)), None), excess, sites, sites, provenance)


def test_figures_of_a_known_curve() -> None:
    excess = np.tile([4.0, 3.0, 2.0, 1.9, 0.5, 0.39, 0.6, 0.0], (10, 1))
    correlation = np.tile([0.1, 0.5, 0.89, 0.91, 0.95, 0.992, 0.98, 1.0], (10, 1))
    found = summarise_recovery(made(excess, correlation)).figures
    assert {name: figure.value for name, figure in found.items()} == {
        "excess_bits_0": 4.0,
        "excess_bits_1": 3.0,
        "excess_bits_2": 2.0,
        "excess_bits_5": pytest.approx(0.39),
        "total_bits": pytest.approx(12.39),
        "half_lag": 3.0,  # below 2, not at it
        "tenth_lag": 5.0,
        "correlation_0.9_lag": 3.0,
        "correlation_0.99_lag": 5.0,
    }
    for figure in found.values():
        assert figure.low == pytest.approx(figure.value)
        assert figure.high == pytest.approx(figure.value)
    assert list(labels(7)) == list(found)


def test_what_is_not_reached_has_no_lag() -> None:
    flat = summarise_recovery(made(np.ones((10, 4)), np.full((10, 4), 0.5))).figures
    for name in ("half_lag", "tenth_lag", "correlation_0.9_lag", "correlation_0.99_lag"):
        assert flat[name] == (None, None, None)
    nothing = summarise_recovery(made(np.zeros((10, 4)))).figures
    assert nothing["half_lag"] == (None, None, None)
    assert nothing["correlation_0.99_lag"] == (0, 0, 0)
    assert nothing["total_bits"] == (0, 0, 0)
    # reached by the mean, and not by every drawn one: the interval is open above
    places = np.where(np.arange(20) < 12, 0.0, 1.0)
    half = summarise_recovery(made(np.stack([np.ones(20), places], 1))).figures["half_lag"]
    assert half == (1.0, 1.0, None)


def test_curves_are_means_with_their_intervals() -> None:
    excess = np.random.default_rng(0).normal(size=(200, 5))
    summary = summarise_recovery(made(excess))
    assert set(summary.curves) == {"excess", "correlation", "correlation, layer 1", "cosine", "cosine, layer 1"}
    mean, low, high = summary.curves["excess"].T
    assert mean == pytest.approx(excess.mean(0))
    half = 1.96 * excess.std(0) / np.sqrt(200)
    assert high - mean == pytest.approx(half, rel=0.15)
    assert mean - low == pytest.approx(half, rel=0.15)
    assert summary.figures["excess_bits_2"] == pytest.approx(tuple(summary.curves["excess"][2]))


@pytest.mark.parametrize(
    ("rounds", "least", "most"), [(40, 33, 39), pytest.param(200, 179, 198, marks=pytest.mark.slow)]
)
def test_intervals_cover_as_often_as_they_say(rounds: int, least: int, most: int) -> None:
    rng, covered = np.random.default_rng(1), 0
    for _ in range(rounds):
        figure = summarise_recovery(made(2 + rng.exponential(size=(60, 3)))).figures["total_bits"]
        assert figure.low is not None
        assert figure.high is not None
        covered += figure.low < 9 < figure.high
    assert least <= covered <= most


def test_differences_are_paired() -> None:
    """Places differ much from each other and the runs little: a pair tells them apart, two intervals would not."""
    rng = np.random.default_rng(2)
    common = 3 + rng.normal(size=(300, 4))
    first = summarise_recovery(made(common))
    second = summarise_recovery(made(common - 0.02 + 0.01 * rng.normal(size=common.shape), name="b"))
    found = recovery_differences(first, second)["excess_bits_1"]
    assert found.value == pytest.approx(-0.02, abs=0.003)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high < -0.01  # type: ignore[operator]
    alone = first.figures["excess_bits_1"]
    assert alone.high - alone.low > 10 * (found.high - found.low)  # type: ignore[operator]
    assert recovery_differences(first, first)["total_bits"] == (0, 0, 0)


def test_a_difference_of_what_is_not_reached() -> None:
    falls = summarise_recovery(made(np.tile([1.0, 0.0], (10, 1))))
    stays = summarise_recovery(made(np.tile([1.0, 1.0], (10, 1))))
    assert recovery_differences(falls, stays)["half_lag"] == (None, None, None)
    assert recovery_differences(falls, falls)["half_lag"] == (0, 0, 0)
    places = np.where(np.arange(20) < 12, 0.0, 1.0)
    now_and_then = summarise_recovery(made(np.stack([np.ones(20), places], 1)))
    steady = summarise_recovery(made(np.tile([1.0, 0.0], (20, 1))))
    assert recovery_differences(steady, now_and_then)["half_lag"] == (0, None, None)


def test_who_may_be_paired() -> None:
    first = made(np.ones((10, 3)))
    assert why_unpaired(first, made(np.ones((10, 3)), name="b", batch=3)) is None
    other = made(np.ones((10, 3)), name="b")
    assert why_unpaired(first, other._replace(provenance={"text_sha256": "t", "tokenizer": "y"})) == (
        "b reads other tokens than a"
    )
    assert "another text" in str(why_unpaired(first, other._replace(provenance={"text_sha256": "u", "tokenizer": "x"})))
    settings: list[dict[str, Any]] = [{"seed": 2}, {"limit": 9}, {"corruption": "delete"}, {"length": 2}]
    for changes in settings:
        assert "other settings" in str(why_unpaired(first, made(np.ones((10, 3)), name="b", **changes)))
