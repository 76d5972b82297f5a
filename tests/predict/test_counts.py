"""Count models by the code that measures every other model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from unrolled.core import tree
from unrolled.counts import KneserNeyConfig, estimate_kneser_ney
from unrolled.data import TokenSplit
from unrolled.evaluate import EvalConfig, evaluate_predictor, read_per_token
from unrolled.predict import Predictor
from unrolled.predict.counts import KneserNeyPredictor
from unrolled.tokenizer import Tokenizer

Make = Callable[..., KneserNeyPredictor]


@pytest.fixture
def text() -> np.ndarray:
    rng = np.random.default_rng(3)
    return (rng.integers(0, 5, 1500) * rng.integers(0, 5, 1500)).clip(0, 19)


@pytest.fixture
def counts(tokenizer: Tokenizer, text: np.ndarray) -> Make:
    def make(order: int = 4, sentences: str = "reset") -> KneserNeyPredictor:
        config = KneserNeyConfig.parse({"order": order, "sentences": sentences})
        return KneserNeyPredictor(estimate_kneser_ney(text, tokenizer.vocab_size, 0, config))

    return make


@pytest.mark.parametrize("sentences", ["reset", "continuous"])
@pytest.mark.parametrize("order", [1, 2, 4])
def test_windows_equal_steps(counts: Make, order: int, sentences: str) -> None:
    predictor = counts(order, sentences)
    rng = np.random.default_rng(4)
    ids = torch.from_numpy(rng.integers(0, 20, (3, 24)) % torch.tensor([[5], [12], [20]]).numpy())
    reset = torch.from_numpy(rng.random((3, 24)) < 0.15)
    whole = Predictor.window(predictor, predictor.begin(3), ids, reset)
    assert whole.nll.dtype == torch.float64
    state, parts = predictor.begin(3), []
    for low, high in ((0, 1), (1, 3), (3, 24)):
        scores = predictor.window(state, ids[:, low:high], reset[:, low:high])
        state = scores.state
        parts.append(scores.nll)
    torch.testing.assert_close(torch.cat(parts, 1), whole.nll, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(predictor.predict(state).log_prob, predictor.predict(whole.state).log_prob)
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(state), tree.leaves(whole.state), strict=True))
    plain = predictor.window(predictor.begin(3), ids)
    assert not order > 1 or not torch.equal(plain.nll, whole.nll), "a reset counts"


@pytest.mark.parametrize("order", [1, 4])
def test_states_are_values_and_rows_independent(counts: Make, order: int) -> None:
    predictor = counts(order)
    first = torch.tensor([4, 6])
    state = predictor.begin(2, first)
    begun = torch.from_numpy(predictor.model.distribution(first[:, None].numpy()))
    assert torch.equal(predictor.predict(state).log_prob, begun)
    assert order == 1 or not torch.equal(begun[0], predictor.predict(predictor.begin(1)).log_prob[0])
    before = [leaf.clone() for leaf in tree.leaves(state)]
    after = predictor.observe(state, torch.tensor([2, 3]))
    predictor.window(state, torch.tensor([[1, 2], [3, 4]]), torch.tensor([[True, False], [False, True]]))
    assert all(torch.equal(a, b) for a, b in zip(before, tree.leaves(state), strict=True))
    log_prob = predictor.predict(after).log_prob
    assert torch.allclose(log_prob.exp().sum(1), torch.ones(2, dtype=torch.float64))
    alone = predictor.consume(predictor.begin(1, first[1:]), torch.tensor([[3]]))
    assert torch.equal(predictor.predict(alone).log_prob[0], log_prob[1])
    swapped = tree.select_rows(after, torch.tensor([1, 0]))
    assert torch.equal(predictor.predict(swapped).log_prob, log_prob.flip(0))
    consumed = predictor.consume(state, torch.tensor([[2, 7], [3, 8]]))
    observed = predictor.observe(after, torch.tensor([7, 8]))
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(consumed), tree.leaves(observed), strict=True))


@pytest.mark.parametrize("starts", [None, np.array([0, 77, 300])], ids=["one text", "texts"])
def test_the_evaluator_gives_the_figure_of_the_model(
    counts: Make, tokenizer: Tokenizer, text: np.ndarray, starts: np.ndarray | None, tmp_path: Path
) -> None:
    predictor = counts()
    ids = np.random.default_rng(5).permutation(text)[:400]
    split = TokenSplit(ids, tokenizer.tables, starts=starts, checksum="abc")
    expected, _ = predictor.model.score(ids, starts)
    result = evaluate_predictor(predictor, split, EvalConfig(window=37), per_token=tmp_path / "tokens")
    assert result.nats == pytest.approx(-expected.sum(), rel=1e-12)
    np.testing.assert_allclose(read_per_token(tmp_path / "tokens").log_prob, expected, rtol=1e-13)
    assert (result.protocol.kind, result.protocol.precision) == ("static", "float64")
    columns = evaluate_predictor(predictor, TokenSplit(ids, tokenizer.tables, checksum="abc"), EvalConfig(columns=3))
    parts = [predictor.model.score(part)[0].sum() for part in np.split(ids[:399], 3)]
    assert columns.nats == pytest.approx(-sum(parts), rel=1e-12)
