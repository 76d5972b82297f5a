"""Scores of words by any predictor, in blocks of any size, as text arrives."""

import io
import math
from collections.abc import Iterator

import pytest
import torch

from evaluate.scored import TEXT, TOKENIZER, make_model, make_tokenizer, part, rows
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data.reading import Part, StreamPart
from unrolled.evaluate import ScoreConfig, read_text, score_text
from unrolled.predict import (
    MonteCarloConfig,
    MonteCarloPredictor,
    NeuralPredictor,
    Predictor,
    PredictorConfig,
    adapt,
)

OPTIONS = [
    {},
    {"temperature": 0.7},
    {"cache": {"length": 5, "theta": 0.3, "weight": 0.3}},
    {"dynamic": {"preset": "sgd", "segment": 4, "lr": 0.05}},
    {"dynamic": {"preset": "sgd", "segment": 4, "lr": 0.05}, "cache": {"length": 5}},
]


@pytest.mark.parametrize("reset", ["none", "line"])
@pytest.mark.parametrize("options", OPTIONS, ids=range(5))
def test_any_predictor(options, reset):
    """Whole distributions give the surprisals of windows, also for predictors that adapt."""
    tokenizer = make_tokenizer("byte")
    model = make_model(tokenizer.vocab_size)
    config = PredictorConfig.parse(options)
    results = []
    for extra in ({}, {"rank": True, "window": 9}, {"boundary": "trailing"}):
        with adapt(NeuralPredictor(model, tokenizer.start_id), config) as predictor:
            results.append([one.nats for one in rows(predictor, tokenizer, reset=reset, **extra)])
    assert results[1] == pytest.approx(results[0], rel=1e-9)
    assert results[2] != pytest.approx(results[0], rel=1e-4)
    if options:
        static = rows(NeuralPredictor(model, tokenizer.start_id), tokenizer, reset=reset)
        assert [one.nats for one in static] != pytest.approx(results[0], rel=1e-6)


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_distributions_of_monte_carlo_dropout(mean):
    tokenizer = make_tokenizer("byte")
    model = make_model(tokenizer.vocab_size, dropout={"input": 0.3, "output": 0.3})
    ids = torch.tensor([tokenizer.encode(TEXT)])
    reset = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)) < 0.1
    config = MonteCarloConfig(samples=3, window=7, mean=mean)
    predictor = MonteCarloPredictor(model, tokenizer.start_id, config)
    scores = predictor.window(predictor.begin(1), ids, reset)
    log_prob, _ = predictor.distributions(predictor.begin(1), ids, reset)
    assert torch.allclose(-log_prob.gather(2, ids.unsqueeze(2)).squeeze(2), scores.nll)


@pytest.mark.parametrize("head", [{"name": "softmax"}, {"name": "pointer", "length": 5}, {"name": "mos"}])
def test_distributions_of_rows_with_resets(head):
    """All steps at once against one by one, two rows that restart at different places."""
    predictor = NeuralPredictor(make_model(11, head=head), 3)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(11, (2, 20), generator=draw)
    reset = torch.rand(ids.shape, generator=draw) < 0.2
    fast, after = predictor.distributions(predictor.begin(2), ids, reset)
    slow, end = Predictor.distributions(predictor, predictor.begin(2), ids, reset)
    assert torch.allclose(fast, slow)
    assert torch.allclose(predictor.predict(after).log_prob, predictor.predict(end).log_prob)
    assert torch.allclose(fast.exp().sum(2), torch.ones(2, 20, dtype=torch.float64))
    nll = predictor.window(predictor.begin(2), ids, reset).nll
    assert torch.allclose(-fast.gather(2, ids.unsqueeze(2)).squeeze(2), nll)


class Cut(Part):
    """Gives its text in small chunks."""

    def chunks(self) -> Iterator[bytes]:
        assert self.make is not None
        data = self.make()
        yield from (data[low : low + 9] for low in range(0, len(data), 9))


@pytest.mark.parametrize("kind", TOKENIZER)
def test_blocks_do_not_matter(kind):
    """A text in blocks that end at spaces; only byte pairs see where long lines are cut."""
    tokenizer = make_tokenizer(kind)
    predictor = NeuralPredictor(make_model(tokenizer.vocab_size), tokenizer.start_id)
    blocks = list(read_text(Cut("text", make=TEXT.encode)))
    assert len(blocks) > 5
    for config in (ScoreConfig(), ScoreConfig(boundary="trailing")):
        whole = list(score_text(predictor, tokenizer, read_text(part(TEXT)), config))
        cut = list(score_text(predictor, tokenizer, blocks, config))
        places = [[(one.text, one.offset, one.unit.line, one.unit.index) for one in each] for each in (whole, cut)]
        assert places[0] == places[1]
        if not kind.startswith("bpe"):
            assert [one.nats for one in cut] == pytest.approx([one.nats for one in whole])


def test_rows_appear_as_text_arrives():
    """A word is given before the rest of the text is asked for, and a stream is cut at its line ends."""
    tokenizer = make_tokenizer("bpe")
    predictor = NeuralPredictor(make_model(tokenizer.vocab_size), tokenizer.start_id)
    arrived: list[int] = []

    class Slow(io.RawIOBase):
        def read1(self, size: int) -> bytes:
            arrived.append(len(arrived))
            low = 5 * (len(arrived) - 1)
            return TEXT.encode()[low : low + 5]

    stream = StreamPart("stream", stream=Slow())  # type: ignore[arg-type]
    found = score_text(predictor, tokenizer, read_text(stream))
    first = next(found)
    assert first.text == "The"
    assert len(arrived) == len(TEXT.split("\n")[0]) // 5 + 1
    whole = rows(predictor, tokenizer)
    assert [first.nats, *(one.nats for one in found)] == pytest.approx([one.nats for one in whole])


def test_bytes_that_are_no_text():
    tokenizer = make_tokenizer("byte")
    predictor = NeuralPredictor(make_model(256), tokenizer.start_id)
    found = rows(predictor, tokenizer, b"a\xff\xfe b\n")
    assert [one.text for one in found] == ["a\ufffd\ufffd", "b", "\n"]
    with pytest.raises(UsageError, match="not UTF-8 at byte 1"):
        rows(NeuralPredictor(make_model(284), 3), make_tokenizer("bpe"), b"a\xff")


def test_refusals():
    tokenizer = make_tokenizer("byte")
    with pytest.raises(UsageError, match="ends of words"):
        ScoreConfig.parse({"unit": "token", "boundary": "trailing"})
    with pytest.raises(UnrolledError, match="use the tokenizer"):
        rows(NeuralPredictor(make_model(5), 0), tokenizer)
    broken = make_model(256)
    with torch.no_grad():
        broken.head.get_parameter("bias").fill_(math.nan)
    with pytest.raises(UnrolledError, match="word 1 of line 1 has a log-probability"):
        rows(NeuralPredictor(broken, 0), tokenizer)
    assert rows(NeuralPredictor(make_model(256), 0), tokenizer, "") == []
