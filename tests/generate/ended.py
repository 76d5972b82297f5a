"""A tokenizer of letters and an end symbol without text, and random models over it."""

from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import torch

from unrolled.core.config import Config
from unrolled.data.tokens import Encoded
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import NeuralPredictor
from unrolled.tokenizer import Tokenizer


class Letters(Tokenizer):
    """The first letters, and the end."""

    kind = "letters"
    Config = Config

    def __init__(self, size: int):
        super().__init__(Config(), [*(bytes([97 + i]) for i in range(size - 1)), b""], end=size - 1)

    @classmethod
    def train(cls, config: Any, blocks: Iterable[bytes]) -> Self:
        raise NotImplementedError

    def encode_block(self, block: bytes) -> Encoded:
        return Encoded.exact(np.frombuffer(block, np.uint8).astype(np.int64) - 97)

    def to_json(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_json(cls, config: Any, state: dict[str, Any]) -> Self:
        raise NotImplementedError


def random_model(size: int, seed: int, dtype: torch.dtype = torch.float64) -> LanguageModel:
    """An LSTM whose distributions are far from uniform."""
    torch.manual_seed(seed)
    model = LanguageModel(ModelConfig.parse({"width": 8, "layers": 1, "cell": "lstm"}), size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(1.2 * torch.randn_like(parameter))
    return model.to(dtype)


def random_predictor(size: int, seed: int) -> NeuralPredictor:
    return NeuralPredictor(random_model(size, seed), size - 1)
