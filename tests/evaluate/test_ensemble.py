"""Ensembles: the optimum, the formats, and files that must not be mixed."""

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data import TokenSplit
from unrolled.evaluate import EvalConfig, compare_files, evaluate_predictor, fit_ensemble
from unrolled.evaluate.ensemble import fit_weights, mix, read_streams

RNG = np.random.default_rng(0)


def table(models: int = 4, n: int = 5000) -> np.ndarray:
    return np.log(RNG.uniform(0.01, 0.9, (models, n)) ** RNG.uniform(0.5, 3, (models, 1)))


def test_mixing_and_weights_against_a_general_optimiser() -> None:
    log_prob = table()
    weights = fit_weights(log_prob)
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(np.exp(mix(log_prob, weights)), weights @ np.exp(log_prob), rtol=1e-12)
    reached = mix(log_prob, weights).mean()
    # concave: no step towards any corner of the simplex, and none away from one in use, gains anything
    for corner in np.eye(4):
        for step in (1e-4, -1e-4):
            moved = (1 - step) * weights + step * corner
            if moved.min() >= 0:
                assert mix(log_prob, moved).mean() <= reached + 1e-12
    assert reached > mix(log_prob, np.full(4, 0.25)).mean()


@pytest.mark.parametrize("worse", [1e-7, 1e-3, 3.0])
def test_never_worse_than_the_best_model_on_the_text_of_the_fit(worse: float) -> None:
    best = table(1)[0]
    others = np.stack([best - worse * RNG.uniform(0.1, 1, best.shape), best - worse])
    log_prob = np.concatenate([others[:1], best[None], others[1:]])
    assert mix(log_prob, fit_weights(log_prob)).mean() >= best.mean() - 1e-14


def test_impossible_for_one_model_is_no_trouble_for_the_mixture() -> None:
    log_prob = np.array([[-800.0, -1.0], [-2.0, -900.0]])
    np.testing.assert_allclose(mix(log_prob, np.array([0.5, 0.5])), [-2 - np.log(2), -1 - np.log(2)])


def write(folder: Path, split: str, name: str, values: np.ndarray) -> None:
    (folder / split).mkdir(parents=True, exist_ok=True)
    text = "".join(f"{value!r}\n" for value in values.tolist()).encode()
    (folder / split / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in ("valid", "test"):
        p = np.exp(table(3, 20_000))
        write(tmp_path / "e", split, "a.txt", p[0])
        write(tmp_path / "e", split, "b.txt.gz", p[1])
        np.savez(tmp_path / "e" / f"{split}.npz", c=p[2].astype(np.float32))
    return tmp_path / "e"


def test_weights_come_from_validation_and_serve_the_test(folder: Path) -> None:
    found, parts = fit_ensemble([folder]), read_streams(folder)
    assert found.weights is not None
    assert set(found.weights) == {"a", "b", "c"}
    for split, streams in parts.items():
        log_prob = np.stack([s.log_prob for s in streams])
        weights = np.array([found.weights[s.name] for s in streams])
        assert found.fitted[split].perplexity == pytest.approx(np.exp(-mix(log_prob, weights).mean()), rel=1e-12)
        assert found.uniform[split].perplexity == pytest.approx(np.exp(-mix(log_prob, np.full(3, 1 / 3)).mean()))
        for stream in streams:
            assert found.members[split][stream.name].perplexity == pytest.approx(np.exp(-stream.log_prob.mean()))
    assert found.fitted["valid"].perplexity <= found.uniform["valid"].perplexity
    assert found.best in found.weights
    assert found.against_best.tokens == 20_000


def test_ours_carry_their_tokens(predictor: Any, tokenizer: Any, tmp_path: Path) -> None:
    ids = RNG.integers(0, 20, 700)
    split = TokenSplit(ids, tokenizer.tables)
    for number, cell in enumerate(("lstm", "gru")):
        (tmp_path / "e" / "test").mkdir(parents=True, exist_ok=True)
        path = tmp_path / "e" / "test" / f"{cell}.tsv"
        evaluate_predictor(predictor(cell), split, EvalConfig(), None, {"n": number}, path)
    found = fit_ensemble([tmp_path / "e"])
    assert found.weights is None
    assert found.fitted == {}
    assert found.tokens == {"test": 700}
    difference = compare_files(tmp_path / "e/test/lstm.tsv", tmp_path / "e/test/gru.tsv")
    members = found.members["test"]
    ratio = np.log(members["lstm"].perplexity / members["gru"].perplexity)
    assert difference.nats_per_token == pytest.approx(ratio, rel=1e-9)
    other = TokenSplit((ids + 1) % 20, tokenizer.tables)
    evaluate_predictor(predictor(), other, EvalConfig(), None, None, tmp_path / "e/test/other.tsv")
    with pytest.raises(UsageError, match="score different tokens"):
        fit_ensemble([tmp_path / "e"])
    context = EvalConfig(first="context")
    evaluate_predictor(predictor(), split, context, None, None, tmp_path / "e/test/other.tsv")
    with pytest.raises(UsageError, match="--first"):
        compare_files(tmp_path / "e/test/lstm.tsv", tmp_path / "e/test/other.tsv")


def test_refusals(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        fit_ensemble([tmp_path / "nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no per-token files"):
        fit_ensemble([tmp_path / "empty"])
    with pytest.raises(UsageError, match="two models are named 'c'"):
        fit_ensemble([folder, folder])
    write(folder, "test", "d.txt", np.full(20_000, 0.1))
    with pytest.raises(UsageError, match="'d' is not in every split"):
        fit_ensemble([folder])
    write(folder, "valid", "d.txt", np.full(19_999, 0.1))
    with pytest.raises(UsageError, match="score different tokens"):
        fit_ensemble([folder])
    write(folder, "valid", "d.txt", np.array([0.5, 0.0]))
    with pytest.raises(UnrolledError, match="value 2 is 0"):
        fit_ensemble([folder])
    (folder / "valid" / "d.txt").write_text("0.5\nhalf\n")
    with pytest.raises(UnrolledError, match="one probability a line"):
        fit_ensemble([folder])
    (folder / "valid.npz").write_bytes(b"PK nonsense")
    with pytest.raises(UnrolledError, match="damaged or no zip archive"):
        fit_ensemble([folder])
    with pytest.raises(UsageError, match="does not exist"):
        compare_files(tmp_path / "x.tsv", tmp_path / "y.tsv")
    with pytest.raises(UsageError, match=r"neither in \.tsv nor in \.txt"):
        compare_files(folder, tmp_path / "y.tsv")


@pytest.mark.slow  # 4 million published probabilities are mixed until they fit
def test_the_published_ensemble_of_seven_models() -> None:
    folder = Path(os.environ.get("UNROLLED_DATA", "")) / "sota-lm-ptb"
    if not (folder / "valid.npz").is_file():
        pytest.skip("the published probabilities are not in $UNROLLED_DATA/sota-lm-ptb")
    found = fit_ensemble([folder])
    figures = [found.fitted["valid"], found.fitted["test"], found.uniform["valid"], found.uniform["test"]]
    assert [round(figure.perplexity, 2) for figure in figures] == [48.92, 47.31, 50.97, 49.28]
