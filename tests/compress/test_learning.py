"""Predictors that learn while they read: both sides learn alike, and the trained weights come back."""

import pytest
import torch

from unrolled.compress import CompressConfig, compress, decompress
from unrolled.model import LanguageModel, ModelConfig
from unrolled.optim.dynamic import DynamicConfig
from unrolled.predict import CacheConfig, CachePredictor, DynamicPredictor, NeuralPredictor, Predictor
from unrolled.tokenizer import TOKENIZERS

LINE = b"the cat sat on the mat and the dog sat on the cat\n"


def model() -> LanguageModel:
    torch.manual_seed(5)
    return LanguageModel(ModelConfig.parse({"width": 16, "cell": "lstm"}), 256).eval()


@pytest.mark.parametrize(
    ("lanes", "lines", "share"),
    [
        (1, 4, 1.05),
        (3, 9, 0.97),
        # a text long enough for learning to be worth much
        pytest.param(1, 40, 0.8, marks=pytest.mark.slow),
        pytest.param(3, 40, 0.8, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("cached", [False, True])
def test_dynamic_evaluation_on_both_sides(lanes: int, lines: int, share: float, cached: bool) -> None:
    text, cls = LINE * lines, TOKENIZERS["byte"]
    tokenizer = cls.train(cls.Config.parse({"name": "byte"}), [])
    made = model()
    before = [p.detach().clone() for p in made.parameters()]

    def predictor() -> Predictor:
        base = DynamicPredictor(made, tokenizer.start_id, DynamicConfig(rule="sgd", lr=0.5))
        return CachePredictor(base, CacheConfig(length=30, theta=0.3)) if cached else base

    config = CompressConfig(lanes=lanes, lane_tokens=1)
    with predictor() as one:
        blob = compress(text, one, tokenizer, config)
    assert all(torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))
    with predictor() as other:
        assert decompress(blob, other, tokenizer) == text
        # a second file with the same predictor begins from the trained weights again
        assert compress(text, other, tokenizer, config) == blob
    assert all(torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))
    unlearned = compress(text, NeuralPredictor(made, tokenizer.start_id), tokenizer, config)
    assert len(blob) < share * len(unlearned)
