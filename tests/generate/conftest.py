"""Tiny models over tiny vocabularies."""

from collections.abc import Callable

import pytest
import torch

from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import NeuralPredictor
from unrolled.tokenizer import TOKENIZERS, Tokenizer


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tokenizer() -> Tokenizer:
    cls = TOKENIZERS["char"]
    return cls.train(cls.Config.parse({"name": "char"}), [b"abcdefghijklmnopqr \n"])


@pytest.fixture
def predictor(tokenizer: Tokenizer) -> Callable[..., NeuralPredictor]:
    """A tiny random model in float64."""

    def make(cell: str = "lstm", vocab_size: int | None = None) -> NeuralPredictor:
        torch.manual_seed(2)
        config = ModelConfig.parse({"width": 8, "cell": cell})
        model = LanguageModel(config, vocab_size or tokenizer.vocab_size).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.7 * torch.randn_like(parameter))
        return NeuralPredictor(model, tokenizer.start_id if vocab_size is None else 0)

    return make
