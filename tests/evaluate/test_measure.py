"""Evaluation against plain loops over the model's own loss."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data import CorpusConfig, TokenSplit, open_corpus
from unrolled.evaluate import EvalConfig, EvalResult, evaluate_predictor, read_per_token
from unrolled.predict import NeuralPredictor, Prediction, Predictor, Scores
from unrolled.tokenizer import TOKENIZERS
from unrolled.tokenizer.encode import encode_corpus

N = 1203


class Uniform(Predictor):
    """Every token equally probable, one of them perhaps impossible."""

    def __init__(self, vocab_size: int, impossible: int | None = None):
        self.vocab_size, self.start_id = vocab_size, 0
        self.row = torch.full((vocab_size,), -math.log(vocab_size), dtype=torch.float64)
        if impossible is not None:
            self.row[impossible] = -math.inf

    def begin(self, batch: int, first: Tensor | None = None) -> Tensor:
        return torch.zeros(batch)

    def predict(self, state: Tensor) -> Prediction:
        return Prediction(self.row.expand(len(state), -1), None)

    def observe(self, state: Tensor, ids: Tensor) -> Tensor:
        return state

    def window(self, state: Tensor, ids: Tensor, reset: Tensor | None = None) -> Scores:
        return Scores(-self.row[ids], None, state)


@pytest.fixture
def ids() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 20, N)


@pytest.fixture
def split(tokenizer, ids: np.ndarray) -> TokenSplit:
    return TokenSplit(ids, tokenizer.tables, checksum="abc")


def nats_of(predictor: NeuralPredictor, ids: np.ndarray, first: int | None = None) -> float:
    """One text in one window, from the initial state, with ``first`` (default: the start symbol) before it."""
    text = torch.from_numpy(ids.copy()).unsqueeze(0)
    start = torch.full((1, 1), predictor.start_id if first is None else first)
    nll = predictor.model.loss(torch.cat([start, text[:, :-1]], 1), text)[1]
    return float(nll.detach().double().sum())


def config(**fields: Any) -> EvalConfig:
    return EvalConfig.parse(fields)


def test_default_scores_every_token_once(predictor, split, ids):
    model = predictor()
    result = evaluate_predictor(model, split, config())
    assert result.nats == pytest.approx(nats_of(model, ids), rel=1e-13)
    assert result.tokens == N
    assert result.protocol.name == "static"
    assert (result.words, result.characters, result.bytes) == tuple(split.units())[1:]
    assert result.provenance == {"split": "test", "text_sha256": "abc"}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("first", ["scored", "context"])
def test_the_window_does_not_change_the_figure(predictor, split, dtype, tolerance, first):
    model = predictor(dtype=dtype)
    figures = [
        evaluate_predictor(model, split, config(window=window, first=first)).nats_per_token for window in (35, 1000)
    ]
    assert max(figures) - min(figures) < tolerance
    assert figures[0] == pytest.approx(
        evaluate_predictor(predictor(), split, config(first=first)).nats_per_token, abs=1e-5
    )


def test_first_token_as_context(predictor, split, ids):
    model = predictor()
    result = evaluate_predictor(model, split, config(first="context", window=50))
    assert result.nats == pytest.approx(nats_of(model, ids[1:], int(ids[0])), rel=1e-13)
    assert result.tokens == N - 1
    assert (result.words, result.characters, result.bytes) == tuple(split.units(1))[1:]
    assert result.protocol.name == "static, first token is context"


@pytest.mark.parametrize("first", ["scored", "context"])
def test_columns_are_cold_and_the_tail_is_left_out(predictor, split, ids, first):
    model, length, skip = predictor(), N // 10, int(first == "context")
    result = evaluate_predictor(model, split, config(columns=10, first=first, window=33))
    columns = [ids[b * length : (b + 1) * length] for b in range(10)]
    expected = sum(nats_of(model, c[skip:], int(c[0]) if skip else None) for c in columns)
    assert result.nats == pytest.approx(expected, rel=1e-13)
    assert result.tokens == 10 * (length - skip)
    counted = [split.units(b * length + skip, (b + 1) * length) for b in range(10)]
    assert (result.words, result.characters) == (sum(u.words for u in counted), sum(u.characters for u in counted))
    assert result.protocol.name.startswith("static, 10 columns")


def test_limit(predictor, split, ids):
    model = predictor()
    result = evaluate_predictor(model, split, config(limit=77, window=50))
    assert result.nats == pytest.approx(nats_of(model, ids[:77]), rel=1e-13)
    assert result.tokens == 77
    assert evaluate_predictor(model, split, config(limit=10**6)).tokens == N


@pytest.mark.parametrize("window", [7, 64, 5000])
@pytest.mark.parametrize("columns", [1, 3])
def test_the_state_restarts_where_texts_begin(predictor, tokenizer, ids, window, columns):
    model = predictor()
    starts = np.array([0, 1, 2, 30, 64, 65, 128, 700, 1199])
    split = TokenSplit(ids, tokenizer.tables, starts=starts)
    result = evaluate_predictor(model, split, config(window=window, columns=columns))
    length = N // columns
    borders = sorted({*starts.tolist(), *(length * b for b in range(columns + 1))})
    texts = [ids[low:high] for low, high in itertools.pairwise(borders)]
    assert result.nats == pytest.approx(sum(nats_of(model, text) for text in texts), rel=1e-13)
    assert result.protocol.reset == "starts"


def test_a_corpus_of_lines_through_the_tokenizer(predictor, tmp_path: Path):
    text = "".join(f"{'abcdef gh'[: n % 9 + 1]} {'jkl'[: n % 3]}\n" for n in range(400))
    path = tmp_path / "lines.txt"
    path.write_text(text)
    corpus = open_corpus(CorpusConfig(path=str(path), reset="line"))
    cls = TOKENIZERS["char"]
    tok = cls.train(cls.Config.parse({"name": "char"}), [b"abcdefghijklmnopqr \n"])
    split = encode_corpus(corpus, tok)["test"]
    lines = b"".join(corpus.blocks("test")).decode().splitlines(keepends=True)
    model = predictor()
    result = evaluate_predictor(model, split, config(window=17))
    expected = sum(nats_of(model, np.array(tok.encode(line))) for line in lines)
    assert result.nats == pytest.approx(expected, rel=1e-12)
    joined = "".join(lines)
    assert (result.tokens, result.characters, result.bytes) == (len(joined),) * 3
    assert result.words == len(joined.split()) + len(lines)
    assert result.bits_per_character == pytest.approx(expected / len(joined) / math.log(2))
    assert result.provenance["text_sha256"] == corpus.checksum("test")


def test_the_published_counts_of_the_penn_treebank(tokenizer):
    split = TokenSplit(np.zeros(82_430, np.int64), tokenizer.tables)
    uniform = Uniform(20)
    for first, tokens in (("scored", 82_430), ("context", 82_429)):
        result = evaluate_predictor(uniform, split, config(first=first))
        assert result.tokens == tokens
        assert result.perplexity_per_token == pytest.approx(20, rel=1e-12)
    ten = evaluate_predictor(uniform, split, config(first="context", columns=10))
    assert ten.tokens == 82_420


def test_progress(predictor, split):
    seen = []
    result = evaluate_predictor(predictor(), split, config(columns=4, window=90), lambda *a: seen.append(a))
    assert [done for done, _, _ in seen] == [360, 720, 1080, 1200]
    assert {total for _, total, _ in seen} == {1200}
    assert seen[-1][2] == pytest.approx(result.nats_per_token)


def test_refusals(predictor, tokenizer, split, ids, tmp_path):
    model = predictor()
    with pytest.raises(UsageError, match="too few for 2000 column"):
        evaluate_predictor(model, split, config(columns=2000))
    with pytest.raises(UsageError, match="too few"):
        evaluate_predictor(model, split, config(first="context", limit=1))
    starts = TokenSplit(ids, tokenizer.tables, starts=np.array([0]))
    with pytest.raises(UsageError, match="first = scored"):
        evaluate_predictor(model, starts, config(first="context"))
    with pytest.raises(UsageError, match="columns = 1"):
        evaluate_predictor(model, split, config(columns=2), per_token=tmp_path / "x.tsv")
    with pytest.raises(UnrolledError, match="predicts 21 tokens"):
        evaluate_predictor(Uniform(21), split, config())


def test_figures_that_are_no_numbers_are_refused(predictor, split, ids, tmp_path):
    rare = int(ids[50])
    at = int(np.flatnonzero(ids == rare)[0])
    with pytest.raises(UnrolledError, match=f"token {at} has"):
        evaluate_predictor(Uniform(20, impossible=rare), split, config(window=20))
    model = predictor()
    with torch.no_grad():
        model.model.head.bias[0] = math.nan
    with pytest.raises(UnrolledError, match="damaged"):
        evaluate_predictor(model, split, config(), per_token=tmp_path / "x.tsv")
    assert list(tmp_path.glob("*x.tsv*")) == []


@pytest.mark.parametrize("name", ["x.tsv", "x.tsv.gz"])
@pytest.mark.parametrize("first", ["scored", "context"])
def test_per_token_figures_are_exact(predictor, split, ids, tmp_path, name, first):
    model, path, skip = predictor(), tmp_path / name, int(first == "context")
    given = {"corpus": "tiny", "tokenizer": "f00"}
    result = evaluate_predictor(model, split, config(first=first, window=100), provenance=given, per_token=path)
    header, tokens, log_prob = read_per_token(path)
    assert tokens.tolist() == ids[skip:].tolist()
    text = torch.from_numpy(ids).unsqueeze(0)
    whole = model.window(model.begin(1, text[:, 0] if skip else None), text[:, skip:]).nll[0]
    np.testing.assert_allclose(-log_prob, whole.numpy(), rtol=1e-12)
    parts = [-log_prob[low : low + 100].sum() for low in range(0, len(log_prob), 100)]
    assert sum(parts) == pytest.approx(result.nats, rel=1e-14)
    assert (header.tokens, header.first_position) == (N - skip, skip)
    assert header.protocol == result.protocol
    assert header.provenance == {**given, "split": "test", "text_sha256": "abc"}
    assert result.provenance == header.provenance


@pytest.mark.parametrize("window", [1, 7, 64, 5000])
@pytest.mark.parametrize("columns", [1, 3])
def test_the_state_restarts_at_lines(predictor, tokenizer, ids, window, columns):
    model, end = predictor(), tokenizer.encode("\n")[0]
    result = evaluate_predictor(
        model, TokenSplit(ids, tokenizer.tables), config(window=window, columns=columns, reset="lines")
    )
    length = N // columns
    ends = (np.flatnonzero(ids == end) + 1).tolist()
    borders = sorted({b for b in (*ends, *(length * b for b in range(columns + 1))) if b <= length * columns})
    texts = [ids[low:high] for low, high in itertools.pairwise(borders)]
    assert len(texts) > 20
    assert result.nats == pytest.approx(sum(nats_of(model, text) for text in texts), rel=1e-13)
    assert result.protocol.name.endswith("state reset at each line")


def test_the_published_denominator(predictor, split):
    model = predictor()
    plain = evaluate_predictor(model, split, config(columns=10, first="context"))
    fed = evaluate_predictor(model, split, config(columns=10, first="context", denominator="fed"))
    assert fed.nats == plain.nats
    assert fed.nats_per_token == pytest.approx(plain.nats_per_token * (1 - 10 / 1200), rel=1e-12)
    assert fed.protocol.comparable_key != plain.protocol.comparable_key
    with pytest.raises(UsageError, match="first = context"):
        evaluate_predictor(model, split, config(denominator="fed"))


def test_an_interval_where_the_text_is_long_enough(predictor, tokenizer, split):
    assert evaluate_predictor(predictor(), split, config()).interval is None
    longer = TokenSplit(np.random.default_rng(1).integers(0, 20, 12_000), tokenizer.tables)
    result = evaluate_predictor(predictor(), longer, config())
    assert result.interval is not None
    assert result.interval[0] < result.nats_per_token < result.interval[1]
    low, high = result.intervals()["perplexity_per_token"]
    assert low == pytest.approx(math.exp(result.interval[0]))
    assert high == pytest.approx(math.exp(result.interval[1]))
    low, high = result.intervals()["bits_per_byte"]
    assert result.bits_per_byte is not None
    assert low < result.bits_per_byte < high
    assert EvalResult.from_json(result.to_json()) == result
