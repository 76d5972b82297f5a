"""The tables against the dictionary reference, and what the options do."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts.conftest import Treebank
from counts.reference import Reference
from counts.texts import START, V, estimate, make_text
from unrolled.core.errors import UsageError
from unrolled.counts import KneserNeyConfig, NgramModel, estimate_kneser_ney
from unrolled.counts.kneser_ney import unclaimed

TEXT = make_text(2000)
STARTS = np.array([0, 200, 201, 555])
HELD_OUT = make_text(60, seed=1)
PRUNES = [(1,), (1, 1, 2), (1, 2, 2, 3)]


def texts(ids: np.ndarray, starts: np.ndarray | None) -> list[list[int]]:
    return [part.tolist() for part in np.split(ids, [] if starts is None else starts[starts > 0])]


def reference(ids: np.ndarray, starts: np.ndarray | None, **options: Any) -> Reference:
    config = KneserNeyConfig.parse(options)
    least = [config.least(k) for k in range(1, config.order + 1)]
    reset = config.sentences == "reset"
    return Reference(texts(ids, starts), V, START, config.order, config.discount, reset, least, config.dropped)


def expected_scores(plain: Reference, ids: np.ndarray, starts: np.ndarray | None = None) -> np.ndarray:
    result = []
    for text in texts(ids, starts):
        result += [plain.prob(plain.context(text[:t]), token) for t, token in enumerate(text)]
    return np.log(result)


def assert_equal(model: NgramModel, plain: Reference, ids: np.ndarray, starts: np.ndarray | None = None) -> None:
    found, _ = model.score(ids, starts)
    np.testing.assert_allclose(found, expected_scores(plain, ids, starts), rtol=1e-12, atol=1e-12)
    for k, discounts in enumerate(model.config.discounts):
        np.testing.assert_allclose(discounts, plain.discounts[k], rtol=1e-13)


@pytest.mark.parametrize("starts", [None, STARTS], ids=["one text", "texts"])
@pytest.mark.parametrize("sentences", ["reset", "continuous"])
@pytest.mark.parametrize("discount", ["modified", "single"])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_equal_to_the_reference(order: int, discount: str, sentences: str, starts: np.ndarray | None) -> None:
    prunes = [prune for prune in PRUNES if len(prune) <= order]
    for prune in prunes:
        options = {"order": order, "discount": discount, "sentences": sentences, "prune": prune}
        model, plain = estimate(TEXT, starts, **options), reference(TEXT, starts, **options)
        other = {**options, "dropped": "backoff"}
        assert_equal(estimate(TEXT, starts, **other), reference(TEXT, starts, **other), HELD_OUT)
        assert_equal(model, plain, HELD_OUT)
        assert_equal(model, plain, HELD_OUT, np.array([17, 40]))
        assert_equal(model, plain, TEXT[:150])
        assert set(model.config.fallback) <= {1}, "discounts of the text itself are compared"


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    ids=st.lists(st.sampled_from([0, 1, START]), min_size=1, max_size=25),
    order=st.integers(1, 5),
    discount=st.sampled_from(["modified", "single"]),
    sentences=st.sampled_from(["reset", "continuous"]),
    least=st.integers(1, 3),
    dropped=st.sampled_from(["interpolate", "backoff"]),
    cuts=st.sets(st.integers(0, 24)),
)
def test_tiny_texts(
    ids: list[int], order: int, discount: str, sentences: str, least: int, dropped: str, cuts: set[int]
) -> None:
    """Empty sentences, orders that no sentence is long enough for, counts of counts that give no discount."""
    text = np.array(ids)
    starts = np.array(sorted(cut for cut in cuts if cut < len(ids)), np.int64)
    prune = (1, least)[:order]
    options = {"order": order, "discount": discount, "sentences": sentences, "prune": prune, "dropped": dropped}
    model, plain = estimate(text, starts, **options), reference(text, starts, **options)
    assert_equal(model, plain, text, starts)
    assert_equal(model, plain, HELD_OUT)


@pytest.mark.parametrize("order", [1, 3, 5])
@pytest.mark.parametrize("sentences", ["reset", "continuous"])
@pytest.mark.parametrize("dropped", ["interpolate", "backoff"])
@pytest.mark.parametrize("prune", [(1,), (1, 1, 2)])
def test_distributions(order: int, sentences: str, prune: tuple[int, ...], dropped: str) -> None:
    """Over 100 histories, half of them seen, all V probabilities are positive, sum to 1 and equal the queries."""
    model = estimate(TEXT, order=order, sentences=sentences, prune=prune[:order], dropped=dropped)
    rng = np.random.default_rng(2)
    seen = np.stack([TEXT[t : t + 6] for t in rng.integers(0, len(TEXT) - 6, 50)])
    contexts = np.concatenate([seen, rng.integers(0, V, (50, 6))])
    known = rng.integers(0, 7, 100)
    table = model.distribution(contexts, known)
    assert table.shape == (100, V)
    assert np.isfinite(table).all()
    np.testing.assert_allclose(np.exp(table).sum(1), 1, rtol=1e-12)
    queried = model.log_prob(np.repeat(contexts, V, 0), np.tile(np.arange(V), 100), np.repeat(known, V))
    np.testing.assert_allclose(table.reshape(-1), queried, rtol=1e-13, atol=1e-13)
    assert (np.ptp(table, 0) > 0).all() == (order > 1)


def test_only_the_known_tokens_of_a_context_count() -> None:
    model = estimate(TEXT, order=4)
    contexts = np.array([[7, 0, 1], [5, 0, 1]])
    rows = model.distribution(contexts, np.array([2, 2]))
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows, model.distribution(contexts[:, 1:]))
    assert not np.array_equal(rows[0], model.distribution(contexts)[0])
    longer = np.concatenate([np.full((2, 3), 9), contexts], 1)
    np.testing.assert_array_equal(model.distribution(longer), model.distribution(contexts))


def test_small_integer_types() -> None:
    """Ids of 8 bits, a type that their keys do not fit."""
    model = estimate(TEXT, order=4)
    contexts, ids = np.lib.stride_tricks.sliding_window_view(TEXT, 3)[:-1], TEXT[3:]
    for kind in (np.uint8, np.int8):
        small = estimate(TEXT.astype(kind), order=4)
        np.testing.assert_array_equal(small.tables[3].keys, model.tables[3].keys)
        rows = model.distribution(contexts.astype(kind))
        np.testing.assert_array_equal(rows, model.distribution(contexts))
        np.testing.assert_array_equal(
            model.log_prob(contexts.astype(kind), ids.astype(kind)), model.log_prob(contexts, ids)
        )
        np.testing.assert_array_equal(model.score(ids.astype(kind))[0], model.score(ids)[0])


def test_by_hand() -> None:
    """ "a b a b b" as one line, order 2, one discount.

    Bigrams <s>a 1, ab 2, ba 1, bb 1, b</s> 1: n_1 = 4, n_2 = 1, D = 4/6. Unigrams by their left neighbours:
    a {<s>, b} 2, b {a, b} 2, </s> {b} 1: n_1 = 1, n_2 = 2, D = 1/5, gamma = 3 (1/5) / 5.
    """
    a, b, end = 0, 1, 2
    config = KneserNeyConfig(order=2, discount="single")
    model = estimate_kneser_ney(np.array([a, b, a, b, b, end]), 4, end, config)
    low = [(2 - 1 / 5) / 5 + 0.12 / 4, (2 - 1 / 5) / 5 + 0.12 / 4, (1 - 1 / 5) / 5 + 0.12 / 4, 0.12 / 4]
    d = 4 / 6
    gamma = 3 * d / 3
    after_b = [(1 - d) / 3 + gamma * low[a], (1 - d) / 3 + gamma * low[b], (1 - d) / 3 + gamma * low[end], gamma * 0.03]
    rows = np.exp(model.distribution(np.array([[b], [a], [end]])))
    np.testing.assert_allclose(rows[0], after_b, rtol=1e-14)
    after_a = [d / 2 * low[a], (2 - d) / 2 + d / 2 * low[b], d / 2 * low[end], d / 2 * low[3]]
    np.testing.assert_allclose(rows[1], after_a, rtol=1e-14)
    np.testing.assert_allclose(rows[2], [1 - d + d * low[a], d * low[b], d * low[end], d * low[3]], rtol=1e-14)
    assert model.config.discounts == ((1 / 5,) * 3, (d,) * 3)


def test_dropped_mass_survives_rounding() -> None:
    """Kept n-grams may hold all of p(.|h') that float64 can tell from 1."""
    found = unclaimed(np.zeros(2, np.int64), np.array([True, False]), np.array([0.5, 0.25]), np.array([1, 1e-20]), 1)
    np.testing.assert_allclose(found, [0.25 / 1e-20])


def test_each_option_changes_the_figure() -> None:
    choices = [{}, {"order": 3}, {"discount": "single"}, {"prune": (1, 1, 2)}, {"sentences": "continuous"}]
    choices.append({"prune": (1, 1, 2), "dropped": "backoff"})
    figures = {estimate(TEXT, **options).score(HELD_OUT)[0].sum() for options in choices}
    figures.add(estimate(TEXT, STARTS).score(HELD_OUT)[0].sum())
    assert len(figures) == len(choices) + 1


def test_the_fallback_is_reported() -> None:
    tiny = estimate(np.array([0, 1, START]), order=2)
    assert tiny.config.fallback == (1, 2)
    assert tiny.config.discounts == ((0.5, 1.0, 1.5),) * 2
    single = estimate(np.array([0, 1, START]), order=2, discount="single")
    assert single.config.discounts == ((0.5,) * 3,) * 2
    # n_1 = n_2 = n_3 = n_4 = 1 as counts of tokens: D_2 = 2 - 3 / 3 = 1 is fine, n_4 = 5 makes D_3 negative.
    good = np.repeat(np.arange(4), [1, 2, 3, 4])
    assert estimate_kneser_ney(good, 12, 11, KneserNeyConfig(order=1)).config.fallback == ()
    bad = np.repeat(np.arange(8), [1, 2, 3, 4, 4, 4, 4, 4])
    assert estimate_kneser_ney(bad, 12, 11, KneserNeyConfig(order=1)).config.fallback == (1,)


def test_scoring_in_parts_equals_scoring_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = estimate(TEXT, order=4)
    starts = np.array([3, 4, 30])
    whole, after = model.score(HELD_OUT, starts)
    one, recent = model.score(HELD_OUT[:29], starts[:2])
    two, end = model.score(HELD_OUT[29:], starts[2:] - 29, recent)
    np.testing.assert_array_equal(np.concatenate([one, two]), whole)
    np.testing.assert_array_equal(end.ids, after.ids)
    monkeypatch.setattr("unrolled.counts.ngrams._BLOCK", 7)
    np.testing.assert_array_equal(model.score(HELD_OUT, starts)[0], whole)
    assert len(model.score(HELD_OUT[:0])[0]) == 0


@pytest.mark.parametrize(
    ("ids", "starts", "options", "message"),
    [
        ([], None, {}, "no token"),
        ([0, V], None, {}, "token id 12 is outside"),
        ([-1, 0], None, {}, "token id -1 is outside"),
        ([0.5], None, {}, "integers"),
        ([0, 1], [1, 1], {}, "rising"),
        ([0, 1], [2], {}, "rising"),
        ([0, 1], None, {"order": 0}, "order"),
        ([0, 1], None, {"prune": (2, 2)}, "begins with 1"),
        ([0, 1], None, {"prune": (1, 3, 2)}, "never falls"),
        ([0, 1], None, {"prune": (1, 1, 1), "order": 2}, "names 3 orders"),
        ([0, 1], None, {"prune": ()}, "prune"),
        ([0, 1], None, {"discount": "good-turing"}, "discount"),
    ],
)
def test_refusals(ids: list[Any], starts: list[int] | None, options: dict[str, Any], message: str) -> None:
    text = np.array(ids) if ids else np.zeros(0, np.int64)
    with pytest.raises(UsageError, match=message):
        estimate(text, None if starts is None else np.array(starts), **options)


def test_a_start_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(UsageError, match="start_id 12 is outside"):
        estimate_kneser_ney(TEXT, V, V)
    with pytest.raises(UsageError, match="too many"):
        estimate_kneser_ney(np.array([0]), 2**40, 0, KneserNeyConfig(order=2))


def test_queries_outside_the_vocabulary_are_refused() -> None:
    model = estimate(TEXT, order=3)
    with pytest.raises(UsageError, match="outside the vocabulary"):
        model.log_prob(np.array([[0, V]]), np.array([0]))
    with pytest.raises(UsageError, match="outside the vocabulary"):
        model.score(np.array([0, -1]))
    # What is not known is not read.
    assert np.isfinite(model.log_prob(np.array([[V, 0]]), np.array([0]), np.array([1]))).all()


def test_penn_treebank(treebank: Treebank) -> None:
    """Perplexity of the 82,430 test tokens, and of all but the first the figures that Herel and Mikolov (2023,
    arXiv 2312.03735) publish for a model of SRILM: 141.46, token by token."""
    train, test, words = treebank.train, treebank.test, treebank.words
    model = estimate_kneser_ney(train, len(words), treebank.end)
    log_prob, _ = model.score(test)
    assert np.exp(-log_prob.mean()) == pytest.approx(141.186, abs=1e-3)
    assert model.config.fallback == ()
    published = treebank.folder / "sota-lm-ptb" / "test.npz"
    if not published.is_file():
        pytest.skip("sota-lm-ptb is not in UNROLLED_DATA")
    theirs = np.log(np.load(published)["KneserNey-5gram"])
    config = KneserNeyConfig(prune=(1, 1, 1, 1, 2), dropped="backoff")
    ours = estimate_kneser_ney(train, len(words), treebank.end, config).score(test)[0][1:]
    assert np.exp(-ours.mean()) == pytest.approx(np.exp(-theirs.mean()), abs=1e-3)
    apart = np.abs(ours - theirs)
    # There the kept n-grams leave almost nothing to other tokens, and the published figure is (c - D) / total.
    assert (apart > 1e-5).sum() <= 18
    assert (theirs[apart > 1e-5] > np.log(0.9)).all()
    assert apart.max() < 0.1
