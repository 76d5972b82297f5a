"""Skip n-grams against dictionaries, against the plain model, and in sums."""

from pathlib import Path

import numpy as np
import pytest

from counts.skip_reference import SkipReference
from counts.texts import START, V, estimate, make_text
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.counts import (
    KneserNeyConfig,
    SkipModel,
    estimate_kneser_ney,
    estimate_skips,
    load_ngrams,
    save_ngrams,
)

TEXT = make_text(300)


def skipping(ids: np.ndarray, starts: np.ndarray | None = None, **options: object) -> SkipModel:
    return estimate_skips(ids, V, START, KneserNeyConfig.parse({"skips": True, **options}), starts)


def histories(ids: np.ndarray, width: int, many: int, seed: int = 1) -> np.ndarray:
    """As many seen as random histories, (2 many, width)."""
    rng = np.random.default_rng(seed)
    at = rng.integers(width, len(ids), many)
    return np.concatenate([np.stack([ids[i - width : i] for i in at]), rng.integers(0, V, (many, width))])


@pytest.mark.parametrize("sentences", ["reset", "continuous"])
def test_equals_the_dictionaries(sentences: str) -> None:
    texts = [TEXT[:170], TEXT[170:]]
    reference = SkipReference([text.tolist() for text in texts], V, START, 4, sentences == "reset")
    model = skipping(TEXT, np.array([0, 170]), order=4, sentences=sentences)
    asked = 0
    for length in (0, 1, 2, 3, 5, 9):
        for begin in range(0, 60, 7):
            text = TEXT[begin : begin + length].tolist()
            history = reference.context(text)
            expected = np.array([reference.skip_prob(history, token) for token in range(V)])
            context = np.array([START, *text])[None]
            found = np.exp(model.distribution(context))
            np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-12)
            ids = np.arange(V)
            one = np.exp(model.log_prob(np.repeat(context, V, 0), ids))
            np.testing.assert_allclose(one, expected, rtol=0, atol=1e-12)
            asked += 1
    assert asked == 54


@pytest.mark.parametrize("order", [1, 3, 4, 5])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sentences": "continuous"},
        {"discount": "single"},
        {"prune": (1, 1, 2)},
        {"prune": (1, 2), "dropped": "backoff"},
    ],
)
def test_without_skips_it_is_the_plain_model(order: int, options: dict[str, object]) -> None:
    if order == 1:
        options = {key: value for key, value in options.items() if key != "prune"}
    text = make_text(900)
    plain = estimate_kneser_ney(text, V, START, KneserNeyConfig.parse({"order": order, **options}))
    model = estimate_skips(text, V, START, KneserNeyConfig.parse({"order": order, **options}))
    contexts = histories(text, 6, 100)
    for known in (None, np.arange(200) % 6 + 1):
        np.testing.assert_allclose(
            np.exp(model.distribution(contexts, known)), np.exp(plain.distribution(contexts, known)), rtol=0, atol=1e-12
        )
        ids = np.arange(200) % V
        found = model.log_prob(contexts, ids, known)
        np.testing.assert_allclose(np.exp(found), np.exp(plain.log_prob(contexts, ids, known)), rtol=0, atol=1e-12)


def test_of_order_two_nothing_can_be_skipped() -> None:
    contexts = histories(TEXT, 3, 100)
    plain, model = estimate(TEXT, order=2), skipping(TEXT, order=2)
    np.testing.assert_allclose(model.distribution(contexts), plain.distribution(contexts), rtol=0, atol=1e-14)
    three = skipping(TEXT, order=3).distribution(contexts)
    assert np.abs(three - estimate(TEXT, order=3).distribution(contexts)).max() > 1e-3, "and of order three it can"


@pytest.mark.parametrize("options", [{}, {"prune": (1, 1, 2)}, {"prune": (1, 1, 1, 2), "dropped": "backoff"}])
@pytest.mark.parametrize("order", [3, 4, 5])
def test_sums_to_one(order: int, options: dict[str, object]) -> None:
    text = make_text(3000)
    if isinstance(least := options.get("prune"), tuple):
        options = {**options, "prune": least[:order]}
    model = estimate_skips(text, V, START, KneserNeyConfig.parse({"skips": True, "order": order, **options}))
    contexts = histories(text, 4, 100)
    probabilities = np.exp(model.distribution(contexts))
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=0, atol=1e-9)
    assert probabilities.min() > 0
    np.testing.assert_allclose(
        np.exp(model.log_prob(contexts, np.arange(200) % V)), probabilities[np.arange(200), np.arange(200) % V],
        rtol=1e-12,
    )  # fmt: skip


def test_refusals() -> None:
    with pytest.raises(UsageError, match="order is at most 8"):
        KneserNeyConfig.parse({"skips": True, "order": 9})
    with pytest.raises(UsageError, match="see estimate_skips"):
        estimate_kneser_ney(TEXT, V, START, KneserNeyConfig(skips=True))
    with pytest.raises(UsageError, match="no token to count"):
        skipping(TEXT[:0])
    model = skipping(TEXT, order=3)
    with pytest.raises(UsageError, match=f"token id {V} is outside"):
        model.distribution(np.array([[1, V]]))
    with pytest.raises(UsageError, match=f"token id {V} is outside"):
        model.log_prob(np.array([[1, 2]]), np.array([V]))


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = skipping(TEXT, order=3, prune=(1, 1, 2))
    save_ngrams(model, tmp_path)
    loaded = load_ngrams(tmp_path)
    assert isinstance(loaded, SkipModel)
    contexts = histories(TEXT, 3, 20)
    assert (loaded.distribution(contexts) == model.distribution(contexts)).all()
    file = tmp_path / "ngrams.json"
    file.write_text(file.read_text().replace('"order": 3', '"order": 90', 1))
    with pytest.raises(UnrolledError, match="names two orders"):
        load_ngrams(tmp_path)
    tables = model.tables
    odd = tables[2]._replace(keys=tables[2].keys[::-1].copy())
    save_ngrams(SkipModel(model.config, (*tables[:2], odd, *tables[3:])), tmp_path)
    with pytest.raises(UnrolledError, match=r"the skip n-grams of pattern 2 in .* are damaged"):
        load_ngrams(tmp_path)
