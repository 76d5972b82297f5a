"""Regression of reading times: least squares against statsmodels, gains against plain loops, planted effects."""

import math
from collections import Counter

import numpy as np
import pytest

from unrolled.analyse import ReadingConfig, ReadingText, Surprisals, WordCounts, measure_reading, reading_record
from unrolled.analyse.reading.regression import held_out, lagged, mean_over, solve
from unrolled.core.errors import UsageError

NAMES = ["intercept", "a", "b", "c"]
COUNTS = WordCounts(Counter({"the": 50, "cat": 3, "can't": 2}), 55)


def example() -> tuple[np.ndarray, np.ndarray]:
    i = np.arange(40.0)
    x = np.stack(
        [
            np.ones(40),
            3 + np.floor(7 * np.abs(np.sin(1.3 * i))),
            -5 - 3 * np.cos(0.7 * i),
            6 + 4 * np.sin(2.1 * i + 0.5),
        ],
        1,
    )
    return x, 300 + 4 * x[:, 1] - 2 * x[:, 2] + 1.5 * x[:, 3] + 20 * np.sin(5.3 * i)


def test_least_squares_is_that_of_statsmodels() -> None:
    fit = solve(*example(), NAMES)
    # statsmodels 0.15.0, OLS(y, x).fit(): params, bse, llf, ssr / n
    params = [308.24995317243645, 3.2556423567927384, -1.3180513020472517, 1.507661792366958]
    errors = [10.943484752883467, 1.104253574202244, 1.091532011402463, 0.8174679729697012]
    np.testing.assert_allclose(fit.coefficients, params, rtol=1e-11)
    np.testing.assert_allclose(fit.errors, errors, rtol=1e-11)
    assert fit.log_likelihood == pytest.approx(-161.79089452011473, rel=1e-12)
    assert fit.variance == pytest.approx(190.8843332631713, rel=1e-12)
    assert fit.nats(*example()).sum() == pytest.approx(fit.log_likelihood, rel=1e-12)


def test_least_squares_beside_an_installed_statsmodels() -> None:
    api = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(0)
    x = np.concatenate([np.ones((200, 1)), rng.normal(size=(200, 6)) * 10.0 ** np.arange(-3, 3)], 1)
    y = x @ rng.normal(size=7) + rng.normal(size=200)
    fit, theirs = solve(x, y, [str(i) for i in range(7)]), api.OLS(y, x).fit()
    np.testing.assert_allclose(fit.coefficients, theirs.params, rtol=1e-9)
    np.testing.assert_allclose(fit.errors, theirs.bse, rtol=1e-9)
    assert fit.log_likelihood == pytest.approx(theirs.llf, rel=1e-12)


def test_what_cannot_be_fitted_is_refused() -> None:
    x, y = example()
    with pytest.raises(UsageError, match="c is given by the other predictors"):
        solve(np.concatenate([x[:, :3], x[:, 1:2] - 2 * x[:, 2:3]], 1), y, NAMES)
    with pytest.raises(UsageError, match="4 words are too few for 4 predictors"):
        solve(x[:4], y[:4], NAMES)
    with pytest.raises(UsageError, match="the measure is the same for all words"):
        solve(x, np.full(40, 3.0), NAMES)


def test_words_before_are_those_of_the_same_text() -> None:
    one, two = np.arange(5.0)[:, None], np.array([[9.0]])
    first, second = lagged([one, two], 2)
    assert first.tolist() == [[2, 1, 0], [3, 2, 1], [4, 3, 2]]
    assert second.shape == (0, 3)


def test_left_out_texts_are_not_fitted() -> None:
    x, y = example()
    texts, measures = [x[i::4] for i in range(4)], [y[i::4] for i in range(4)]
    found = held_out(texts, measures, 2, NAMES)
    for i in range(4):
        others = [j for j in range(4) if (j - i) % 2]
        known, target = np.concatenate([texts[j] for j in others]), np.concatenate([measures[j] for j in others])
        plain = np.linalg.lstsq(known, target, rcond=None)[0]
        variance = ((target - known @ plain) ** 2).mean()
        for row, value, nats in zip(texts[i], measures[i], found[i], strict=True):
            density = math.exp(-((value - row @ plain) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
            assert nats == pytest.approx(math.log(density), rel=1e-9)


def test_intervals() -> None:
    texts = [np.full(10, value) for value in (1.0, 2.0, 3.0, 4.0, 5.0)]
    by_texts, by_words = mean_over(texts), mean_over(texts, "words")
    assert by_texts.mean == by_words.mean == 3
    assert by_texts.low is not None
    assert by_texts.high is not None
    assert by_words.low is not None
    assert by_texts.low < by_words.low < 3 < by_texts.high, "words of a text hang together"
    assert mean_over(texts[:4]).low is None
    assert mean_over(texts) == by_texts, "the draws are the same each time"


def made(effect: tuple[float, float, float], texts: int = 6) -> tuple[list[ReadingText], Surprisals]:
    """Texts whose measure follows surprisal with these effects of a word and the two before it, and noise."""
    rng = np.random.default_rng(5)
    found, bits = [], []
    words = ["the", "cat", "elephants", "Can't,", "hill"]
    for number in range(texts):
        spelled = tuple(words[i] for i in rng.integers(0, len(words), 200))
        own = rng.gamma(2, 3, 200)
        noise = 250 + 3 * np.array([len(word) for word in spelled]) + rng.normal(size=200) * 5
        measure = noise + sum(e * np.concatenate([np.zeros(lag), own[: 200 - lag]]) for lag, e in enumerate(effect))
        measure[7] = np.nan
        found.append(ReadingText(str(number), spelled, measure))
        bits.append(own)
    return found, Surprisals(bits, float(np.concatenate(bits).sum() * math.log(2)), 1200, 0)


def test_planted_effects_are_found() -> None:
    texts, surprisals = made((2.0, 1.0, 0.0))
    use = measure_reading(texts, surprisals, COUNTS, ReadingConfig())
    run = reading_record([use], ReadingConfig(), {})["runs"][0]
    values = {one["name"]: (one["coefficient"], one["error"]) for one in run["coefficients"]}
    for name, effect in (("surprisal", 2), ("surprisal, 1 before", 1), ("surprisal, 2 before", 0), ("length", 3)):
        assert abs(values[name][0] - effect) < 4 * values[name][1], name
    assert run["gain"]["low"] > 0.5
    assert sum(len(part) for part in use.full) == 6 * (200 - 2 - 1), "two before, and one without a measure"
    assert run["perplexity"] == pytest.approx(2 ** run["bits_per_word"])


def test_what_says_nothing_gains_nothing() -> None:
    texts, surprisals = made((0.0, 0.0, 0.0))
    use = measure_reading(texts, surprisals, COUNTS, ReadingConfig())
    run = reading_record([use, use], ReadingConfig(), {})["runs"]
    assert abs(run[0]["gain"]["mean"]) < 0.01
    assert run[1]["less_than_first"]["mean"] == 0


def test_options_act() -> None:
    texts, surprisals = made((2.0, 1.0, 0.0))
    gains = set()
    for options in ({}, {"spillover": 0}, {"spillover": 1}, {"folds": 2}, {"log": True}):
        config = ReadingConfig.parse(options)
        use = measure_reading(texts, surprisals, COUNTS, config)
        assert len(use.fit.coefficients) == 1 + 3 * (config.spillover + 1)
        gains.add(reading_record([use], config, {})["runs"][0]["gain"]["mean"])
    assert len(gains) == 5
    with pytest.raises(UsageError, match=r"1 text\(s\) have measured words"):
        measure_reading(texts[:1], surprisals._replace(bits=surprisals.bits[:1]), COUNTS, ReadingConfig())
    below = [text._replace(measures=text.measures - 1000) for text in texts]
    with pytest.raises(UsageError, match="has no logarithm"):
        measure_reading(below, surprisals, COUNTS, ReadingConfig(log=True))


def test_word_frequencies() -> None:
    assert COUNTS.log_prob("The") == COUNTS.log_prob('"the,') == pytest.approx(math.log(51 / 59))
    assert COUNTS.log_prob("Can't!") == pytest.approx(math.log(3 / 59))
    assert COUNTS.log_prob("--") == COUNTS.log_prob("elephant") == pytest.approx(math.log(1 / 59))
    seen = sum(math.exp(COUNTS.log_prob(word)) for word in COUNTS.counts)
    assert seen + math.exp(COUNTS.log_prob("elephant")) == pytest.approx(1)
