"""Fixtures: tiny models, a tiny character vocabulary, and a head that carries state."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unrolled.model import LanguageModel, ModelConfig
from unrolled.model.heads.base import Head, HeadConfig
from unrolled.predict import NeuralPredictor
from unrolled.tokenizer import TOKENIZERS, Tokenizer


@pytest.fixture(autouse=True)
def _private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)


class CountingHead(Head):
    """Logits grow for tokens seen since the last reset. The state is their counts (batch, V)."""

    class Config(HeadConfig):
        name: str = "counting"

    def __init__(self, in_width: int, vocab_size: int):
        super().__init__(in_width, vocab_size, self.Config())
        self.weight = nn.Parameter(torch.randn(vocab_size, in_width))

    def initial_state(self, batch: int, device: Any = None, dtype: Any = None) -> torch.Tensor:
        return torch.zeros(batch, self.vocab_size, dtype=dtype)

    def loss(self, h, targets, weight=None, state=None, reset=None, masks=None):
        assert state is not None
        nll = []
        for t in range(h.shape[1]):
            if reset is not None:
                state = state * ~reset[:, t : t + 1]
            log_prob, _ = self.log_prob(h[:, t], state)
            nll.append(-log_prob.gather(1, targets[:, t : t + 1]))
            state = state + nn.functional.one_hot(targets[:, t], self.vocab_size)
        per_token = torch.cat(nll, 1)
        return per_token.sum(), per_token, state

    def log_prob(self, h, state=None, masks=None):
        assert state is not None
        return torch.log_softmax(h @ self.weight.t() + 0.3 * state, -1), state


@pytest.fixture
def tokenizer() -> Tokenizer:
    cls = TOKENIZERS["char"]
    return cls.train(cls.Config.parse({"name": "char"}), [b"abcdefghijklmnopqr \n"])


@pytest.fixture
def predictor(tokenizer: Tokenizer) -> Callable[..., NeuralPredictor]:
    """A tiny random model, not near uniform: cell, dtype, and a head with state on demand."""

    def make(cell: str = "lstm", dtype: torch.dtype = torch.float64, counting: bool = False) -> NeuralPredictor:
        torch.manual_seed(1)
        size = tokenizer.vocab_size
        model = LanguageModel(ModelConfig.parse({"width": 8, "layers": 2, "cell": cell}), size)
        if counting:
            model.head = CountingHead(8, size)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.5 * torch.randn_like(parameter))
        return NeuralPredictor(model.to(dtype), tokenizer.start_id)

    return make
