"""Documents: the retriever by hand, and the mixture against runs of its own."""

import math
from pathlib import Path

import pytest
import torch

from conformance.predictors.build import IDS, _tokenizer, ids, reader, source
from unrolled.core.errors import UsageError
from unrolled.predict import PredictorConfig, adapt
from unrolled.predict.bm25 import BM25, words_of
from unrolled.predict.documents import DocumentsConfig, DocumentsPredictor
from unrolled.predict.library import Library, states_of

DOCUMENTS = [ids(1, length, seed)[0] for seed, length in enumerate((7, 4, 7, 9, 3), 20)]
WORDS = ["abe", "bca", "j", "ja", "cab"]
TEXT = torch.tensor([_tokenizer().encode("abe bca j abe j ja bca\n")])


def predictor(count: int, words: list[str] | None = None, **options: object) -> DocumentsPredictor:
    model = reader()
    library = Library(states_of(model, DOCUMENTS[:count]), BM25([[w] for w in (words or WORDS)[:count]]))
    return DocumentsPredictor(model, DocumentsConfig.model_validate(options), library, _tokenizer())


def test_bm25_by_hand() -> None:
    index = BM25([words_of("The cat, the hat"), words_of("a dog"), words_of("cat cat dog-house")])
    lengths, mean = (4, 2, 4), 10 / 3
    rare = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))  # cat and dog are in two documents each

    def part(times: int, document: int) -> float:
        return rare * times * 2.5 / (times + 1.5 * (0.25 + 0.75 * lengths[document] / mean))

    wanted = [part(1, 0), part(1, 1), part(2, 2) + part(1, 2)]
    assert index.scores(words_of("CAT dog fish")).tolist() == pytest.approx(wanted)
    assert index.scores(["cat", "cat"])[0] == pytest.approx(2 * part(1, 0))
    assert not index.scores([]).any()


def test_states_are_those_of_reading_one_by_one() -> None:
    model = reader()
    states = states_of(model, DOCUMENTS)
    for index, document in enumerate(DOCUMENTS):
        alone = model.consume(model.begin(1), document.unsqueeze(0))
        assert torch.allclose(states.hidden[index], alone.hidden[0], atol=1e-12)


@pytest.mark.parametrize("stride", [1, 4, 100])
def test_one_document_is_read_before_the_text(stride: int) -> None:
    model, one = reader(), predictor(1, k=1, stride=stride, query=5)
    begun = model.consume(model.begin(1), DOCUMENTS[0].unsqueeze(0))
    state = one.begin(1)
    for t in range(IDS.shape[1]):
        assert torch.equal(one.predict(state).log_prob, model.predict(begun).log_prob)
        state, begun = one.observe(state, IDS[:1, t]), model.observe(begun, IDS[:1, t])


def test_the_mixture_is_that_of_runs_of_its_own() -> None:
    """Three documents of three: weights change with the query, and the rows are those after each document."""
    model, mixed = reader(), predictor(3, k=3, stride=4, query=6, tau=0.5)
    text, found, seen = TEXT, mixed.window(mixed.begin(1), TEXT).nll[0], set()
    after = [model.consume(model.begin(1), document.unsqueeze(0)) for document in DOCUMENTS[:3]]
    runs = [-model.window(state, text).nll[0] for state in after]
    for t in range(text.shape[1]):
        asked = t - t % 4
        query = _tokenizer().decode(text[0, max(0, asked - 6) : asked].tolist())
        scores = torch.from_numpy(mixed.library.index.scores(words_of(query)))
        weights = (scores / 0.5).log_softmax(0)
        wanted = -torch.logsumexp(weights + torch.stack([run[t] for run in runs]), 0)
        assert abs(float(wanted - found[t])) < 1e-9, t
        seen.add(tuple(weights.tolist()))
    assert len(seen) > 2, "the weights change"


def test_a_new_document_is_followed_by_the_last_tokens() -> None:
    model, one = reader(), predictor(5, words=["ab", "x", "y", "jj", "z"], k=1, stride=4, query=3)
    text = torch.tensor([_tokenizer().encode("c ab jj ab c ")])
    plain = model.begin(1)
    first = one.window(one.begin(1), text[:, :4])
    assert torch.allclose(first.nll, model.window(plain, text[:, :4]).nll, atol=1e-12), "no document at first"
    assert first.state.chosen.tolist() == [[0]], "ab was among the last three tokens"
    begun = model.consume(model.begin(1), torch.cat([DOCUMENTS[0], text[0, 1:4]]).unsqueeze(0))
    wanted = model.predict(begun).log_prob
    assert torch.allclose(one.predict(first.state).log_prob, wanted, atol=1e-12)
    second = one.window(first.state, text[:, 4:8])
    assert second.state.chosen.tolist() == [[3]], "then jj"


def test_equal_documents_are_one() -> None:
    model = reader()
    index = BM25([["ab"]] * 3)
    library = Library(states_of(model, [DOCUMENTS[0]] * 3), index)
    many = DocumentsPredictor(model, DocumentsConfig(k=3, stride=2), library, _tokenizer())
    one = predictor(1, k=1, stride=2)
    found, wanted = many.window(many.begin(3), IDS).nll, one.window(one.begin(3), IDS).nll
    assert float((found - wanted).abs().max()) < 1e-9


def test_weights_sum_to_one_and_equal_ones_stay() -> None:
    for weights, moved in (("scores", True), ("equal", False)):
        mixed = predictor(5, k=2, stride=2, weights=weights)
        state = mixed.consume(mixed.begin(2), torch.cat([TEXT, TEXT.flip(1)]))
        assert torch.allclose(state.weights.exp().sum(1), torch.ones(2).double(), atol=1e-12)
        assert bool(((state.weights[:, 0] - state.weights[:, 1]).abs() > 1e-6).any()) == moved


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="leave out documents"):
        adapt(reader(), PredictorConfig.parse({"documents": {}}), None)
    with pytest.raises(UsageError, match="lower documents"):
        adapt(reader(), PredictorConfig.parse({"documents": {"piece": 100}}), source)
    with pytest.raises(UsageError, match="leave out one of them"):
        PredictorConfig.parse({"documents": {"store": str(Path("x")), "limit": 3}})
    with pytest.raises(UsageError, match="gives no hidden states"):
        PredictorConfig.parse({"documents": {}, "cache": 5})
