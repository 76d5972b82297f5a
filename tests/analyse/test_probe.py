"""AUC, threshold and regression against plain definitions."""

import importlib.util
import math

import numpy as np
import pytest

from unrolled.analyse import auc, best_unit, fit_bag_of_words, fit_logistic, probe
from unrolled.core.errors import UnrolledError, UsageError

needs_sklearn = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed (the extra probe)"
)
RNG = np.random.default_rng(5)


def plain_auc(values: np.ndarray, positive: np.ndarray) -> float:
    """Over all pairs of a positive and a negative row."""
    pairs = [(up > down) + 0.5 * (up == down) for up in values[positive] for down in values[~positive]]
    return float(np.mean(pairs))


def test_auc_over_pairs() -> None:
    values = RNG.integers(0, 5, (40, 6)).astype(float)
    values[:, 5] = 3.0  # all equal
    values[:, 4] = RNG.normal(size=40)
    positive = RNG.random(40) < 0.3
    wanted = [plain_auc(values[:, unit], positive) for unit in range(6)]
    np.testing.assert_allclose(auc(values, positive), wanted, rtol=0, atol=1e-14)
    assert wanted[5] == 0.5


def test_best_unit_and_threshold() -> None:
    positive = np.arange(60) % 3 == 0
    train, test = RNG.normal(size=(60, 7)), RNG.normal(size=(60, 7))
    train[:, 4] -= 2.0 * positive
    test[:, 4] -= 2.0 * positive
    found = best_unit(train, positive, test, positive)
    assert (found.unit, found.sign) == (4, -1)
    assert found.train.auc == pytest.approx(1 - plain_auc(train[:, 4], positive))
    assert found.test.auc == pytest.approx(1 - plain_auc(test[:, 4], positive))
    tried = [np.mean((-train[:, 4] > cut) == positive) for cut in np.linspace(-5, 5, 20_001)]
    assert found.train.accuracy == pytest.approx(max(tried))
    assert found.test.accuracy == np.mean((-test[:, 4] > found.threshold) == positive)
    assert found.test.low < found.test.accuracy < found.test.high
    assert found.aucs.shape == (7,)
    assert found.aucs.min() >= 0.5


def test_equal_units_are_told_apart_by_distance() -> None:
    positive = np.arange(20) < 10
    noise = RNG.uniform(-1, 1, (20, 3))
    values = np.where(positive[:, None], 1.0, -1.0) * [3, 9, 6] + noise
    found = best_unit(values, positive, values, positive)
    assert found.aucs.tolist() == [1, 1, 1]
    assert (found.unit, found.ties) == (1, 3)
    values[:, 0] = np.where(positive, 0.001, -0.001)  # no spread, and hardly any gap: it does not steer
    assert best_unit(values, positive, values, positive).unit == 1
    flat = np.where(positive[:, None], 1.0, -1.0) * np.ones((1, 2))
    assert best_unit(flat, positive, flat, positive).train.auc == 1, "no spread within the classes is no fault"


@pytest.mark.parametrize("flip", [False, True])
def test_a_threshold_may_lie_outside(flip: bool) -> None:
    """Equal values cannot be divided; the larger class wins."""
    positive = np.array([True, True, False]) ^ flip
    found = best_unit(np.ones((3, 1)), positive, np.ones((3, 1)), positive)
    assert found.train.accuracy == pytest.approx(2 / 3)
    assert found.train.auc == 0.5


def _data(count: int, units: int = 12) -> tuple[np.ndarray, np.ndarray]:
    x = RNG.normal(3, 2, (count, units))
    weights = np.zeros(units)
    weights[[1, 5, 8]] = 1.5, -1.0, 0.5
    return x, RNG.random(count) < 1 / (1 + np.exp(-((x - 3) @ weights)))


@needs_sklearn
def test_regression_is_the_minimum() -> None:
    """The conditions that the minimum of C * loss + sum |w| meets (of a subgradient), on standardised features."""
    (x, y), (dev, dev_y), (test, test_y) = _data(300), _data(100), _data(200)
    strength = 0.05
    found = fit_logistic(x, y, dev, dev_y, test, test_y, [strength])
    mean, scale = x.mean(0), x.std(0)
    z, w = (x - mean) / scale, found.weights * scale
    p = 1 / (1 + np.exp(-(x @ found.weights + found.bias)))
    slope = strength * z.T @ (p - y)
    zero = w == 0
    assert 0 < zero.sum() < len(w)
    assert found.nonzero == (~zero).sum()
    np.testing.assert_allclose(slope[~zero], -np.sign(w[~zero]), atol=0.01)
    assert np.abs(slope[zero]).max() < 1.01
    assert {1, 5} <= set(np.flatnonzero(~zero))
    scores = test @ found.weights + found.bias
    assert found.test.accuracy == np.mean((scores > 0) == test_y)
    assert found.test.auc == pytest.approx(plain_auc(scores, test_y))
    assert (found.features, found.test.n) == (12, 200)


@needs_sklearn
def test_dev_chooses_the_strength() -> None:
    (x, y), (dev, dev_y), (test, test_y) = _data(60), _data(300), _data(100)
    strengths = (4.0, 1e-6, 0.1)
    found = fit_logistic(x, y, dev, dev_y, test, test_y, strengths)
    alone = {s: fit_logistic(x, y, dev, dev_y, test, test_y, [s]) for s in strengths}
    assert list(found.tried) == sorted(strengths)
    for strength in strengths:
        one = alone[strength]
        assert found.tried[strength] == np.mean((dev @ one.weights + one.bias > 0) == dev_y)
    best = max(found.tried.values())
    assert found.strength == min(s for s in strengths if found.tried[s] == best)
    assert found.at_end == (found.strength in (4.0, 1e-6))
    np.testing.assert_allclose(found.weights, alone[found.strength].weights, rtol=1e-3, atol=1e-4)
    assert alone[1e-6].nonzero == 0
    assert fit_logistic(x, y, dev, dev_y, test, test_y, [1e-6, 1e-7]).strength == 1e-7, "of equals the sparser"


@needs_sklearn
def test_words() -> None:
    texts = ["a Good film!", "bad film", "good, plain", "bad bad plot", "Good plot", "it is bad"]
    labels = np.array([True, False, True, False, True, False])
    found = fit_bag_of_words(texts, labels, texts, labels, ["GOOD thing", "so bad", "unknown"], labels[:3], [10.0])
    assert found.features == len({"a", "good", "film", "!", "bad", ",", "plain", "plot", "it", "is"})
    assert found.test.accuracy >= 2 / 3
    assert found.nonzero >= 1
    one = fit_bag_of_words(texts, labels, texts, labels, ["good", "good"], labels[[0, 0]], [10.0])
    assert math.isnan(one.test.auc), "one class alone has no AUC"
    with pytest.raises(UsageError, match="hold no words"):
        fit_bag_of_words(["", " "], labels[:2], texts, labels, texts, labels, [1.0])


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(probe.importlib, "import_module", absent)
    x, y = _data(10)
    with pytest.raises(UnrolledError, match=r'needs scikit-learn; install it with: pip install "unrolled\[probe\]"'):
        fit_logistic(x, y, x, y, x, y, [1.0])
    with pytest.raises(UnrolledError, match="needs scikit-learn"):
        fit_bag_of_words(["a"], y, ["a"], y, ["a"], y, [1.0])


@needs_sklearn
def test_one_label_is_refused() -> None:
    x, y = _data(10)
    with pytest.raises(UsageError, match="all have one label"):
        fit_logistic(x, y | True, x, y, x, y, [1.0])
