"""Predictors to compress with: one that counts, one whose rows learn from each other, and tiny random models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import NeuralPredictor, Prediction, Predictor


class Counting(Predictor):
    """Adapts: the probability of an id is its share among those seen so far. State: counts (batch, V).

    Args:
        together: every row learns what all rows observe, as when a model's weights adapt.
    """

    kind = "counting"

    def __init__(self, vocab_size: int = 256, together: bool = False, prior: float = 0.1, start_id: int = 0):
        self.vocab_size, self.start_id, self.together, self.prior = vocab_size, start_id, together, prior

    @property
    def options(self) -> dict[str, Any]:
        return {"together": self.together, "prior": (self.prior,)}

    def begin(self, batch: int, first: Tensor | None = None) -> Tensor:
        return torch.full((batch, self.vocab_size), self.prior, dtype=torch.float64)

    def predict(self, state: Tensor) -> Prediction:
        return Prediction((state / state.sum(1, keepdim=True)).log(), None)

    def observe(self, state: Tensor, ids: Tensor) -> Tensor:
        seen = torch.nn.functional.one_hot(ids, self.vocab_size).double()
        return state + (seen.mean(0) if self.together else seen)


@pytest.fixture
def counting() -> type[Counting]:
    return Counting


@pytest.fixture
def neural() -> Callable[..., NeuralPredictor]:
    """A tiny random model over so many ids, not near uniform."""

    def make(vocab_size: int = 256, seed: int = 1, width: int = 8, start_id: int = 10, **model: Any) -> NeuralPredictor:
        torch.manual_seed(seed)
        built = LanguageModel(ModelConfig.parse({"width": width, **model}), vocab_size)
        with torch.no_grad():
            for parameter in built.parameters():
                parameter.copy_(0.7 * torch.randn_like(parameter))
        return NeuralPredictor(built, start_id)

    return make


@pytest.fixture(autouse=True)
def _one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)
