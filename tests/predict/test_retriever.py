"""The retriever that learns from what helps the model: planted documents, the divergence, and the adapter."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.core.tree import leaves
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import NeuralPredictor, PredictorConfig
from unrolled.predict.base import Prediction, Predictor
from unrolled.predict.bm25 import BM25
from unrolled.predict.library import states_of
from unrolled.predict.retriever import (
    DualEncoder,
    LearnedIndex,
    RetrieverConfig,
    divergence,
    learn_retriever,
    learned_index,
)

COUNT = 20
WORDS = [*(f"question{k}" for k in range(COUNT)), *(f"answer{k}" for k in range(COUNT))]
DOCUMENTS = [[f"note{k}a", f"note{k}b", "and"] for k in range(COUNT)]


class Reader(Predictor):
    """Has read one document, and knows its answer."""

    vocab_size, start_id = 2 * COUNT, 0

    def begin(self, batch: int, first: Tensor | None = None) -> Any:
        return torch.zeros(batch, 1, dtype=torch.int64)

    def predict(self, state: Tensor) -> Prediction:
        found = torch.full((len(state), self.vocab_size), 0.1 / (self.vocab_size - 1), dtype=torch.float64)
        found.scatter_(1, COUNT + state, 0.9)
        return Prediction(found.log(), None)

    def observe(self, state: Tensor, ids: Tensor) -> Tensor:
        return state


class Text:
    """Questions, each with its answer behind it."""

    def __init__(self, seed: int, pairs: int = 400):
        which = np.random.default_rng(seed).integers(0, COUNT, pairs)
        self.all = np.stack([which, which + COUNT], 1).ravel()

    def __len__(self) -> int:
        return len(self.all)

    def ids(self, low: int, high: int) -> np.ndarray:
        return self.all[low:high]


class Speller:
    def decode(self, ids: list[int]) -> str:
        return " ".join(WORDS[one] for one in ids)


def learn(model: Any, states: Any, documents: Any, config: RetrieverConfig, query: int, following: int) -> Any:
    text: Any = Text(3 if query > 1 else 1)
    speller: Any = Speller()
    return learn_retriever(model, states, documents, text, speller, config, query, following, 1.0)


def learned(config: RetrieverConfig) -> dict[str, Tensor]:
    return learn(Reader(), torch.arange(COUNT).unsqueeze(1), DOCUMENTS, config, 1, 1)


def share_first(index: Any) -> float:
    """Of all questions, for how many the document with the answer comes first."""
    return sum(int(np.argmax(index.scores([f"question{k}"]))) == k for k in range(COUNT)) / COUNT


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["retriever", "model"])
def test_planted_documents_are_found(direction: str) -> None:
    """No question has a word in common with its document, so that words alone find none."""
    config = RetrieverConfig.parse({"updates": 200, "direction": direction, "rows": 4096, "queries": 16})
    found = learned(config)
    assert share_first(BM25(DOCUMENTS)) <= 0.05
    assert share_first(LearnedIndex(DualEncoder(DOCUMENTS, config.width, config.rows))) <= 0.2
    fell = found["divergence"]
    assert float(fell[-20:].mean()) < 0.2 * float(fell[:20].mean())
    assert share_first(learned_index(DOCUMENTS, found)) > 0.9


def test_the_divergence_is_that_of_explicit_sums() -> None:
    generator = torch.Generator().manual_seed(2)
    scores, likely = (torch.randn(3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    p, q = torch.softmax(scores / 0.7, 1), torch.softmax(likely / 2.5, 1)
    config = RetrieverConfig(sharpness=2.5)
    torch.testing.assert_close(divergence(scores, likely, config, 0.7), (p * (p / q).log()).sum(1))
    other = config.model_copy(update={"direction": "model"})
    torch.testing.assert_close(divergence(scores, likely, other, 0.7), (q * (q / p).log()).sum(1))
    assert float(divergence(likely / 2.5, likely, config, 1.0).abs().max()) < 1e-12


def test_the_model_stays_as_it_is_and_what_it_finds_likely_is_told() -> None:
    torch.manual_seed(0)
    model = LanguageModel(ModelConfig.parse({"width": 6, "layers": 1, "cell": "lstm"}), 2 * COUNT).double().eval()
    before = [one.clone() for one in model.state_dict().values()]
    predictor = NeuralPredictor(model, 0)
    documents = [torch.randint(2 * COUNT, (4 + k % 2,), generator=torch.Generator().manual_seed(k)) for k in range(5)]
    states = states_of(predictor, documents)
    kept = [one.clone() for one in leaves(states)]
    config = RetrieverConfig(updates=1, queries=1, among=5, lr=1e-9, sharpness=0.05, rows=50)
    found = learn(predictor, states, DOCUMENTS[:5], config, 3, 2)
    assert all(torch.equal(one, other) for one, other in zip(before, model.state_dict().values(), strict=True))
    assert all(torch.equal(one, other) for one, other in zip(kept, leaves(states), strict=True))
    # the one place that was drawn, by hand
    split = Text(3)
    place = int(torch.randint(3, len(split) - 2 + 1, (1,), generator=torch.Generator().manual_seed(0)))
    ids = torch.from_numpy(split.ids(place - 3, place + 2)).long()
    likely = [
        -float(predictor.window(predictor.begin(1), torch.cat([d, ids])[None]).nll[0, -2:].sum()) for d in documents
    ]
    scores = LearnedIndex(DualEncoder(DOCUMENTS[:5], 64, 50)).scores([WORDS[one] for one in ids[:3].tolist()])
    wanted = divergence(torch.from_numpy(scores)[None], torch.tensor([likely]).double(), config, 1.0)
    assert float(found["divergence"]) == pytest.approx(float(wanted), rel=1e-4)


def test_refused() -> None:
    with pytest.raises(UsageError, match="of the retriever that learns"):
        PredictorConfig.parse({"documents": {"learning": {"updates": 3}}})
    with pytest.raises(UsageError, match="two documents at least"):
        learn(Reader(), torch.zeros(1, 1), DOCUMENTS[:1], RetrieverConfig(), 1, 1)
