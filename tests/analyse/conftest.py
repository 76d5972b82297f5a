"""A tiny random model of any cell, and a text of its tokens."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from unrolled.cells import CELLS
from unrolled.data import TokenSplit
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import NeuralPredictor
from unrolled.tokenizer import TOKENIZERS, Tokenizer


@pytest.fixture(autouse=True)
def _private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)


@pytest.fixture
def tokenizer() -> Tokenizer:
    cls = TOKENIZERS["char"]
    return cls.train(cls.Config.parse({"name": "char"}), [b"abcdefghijkl \n"])


@pytest.fixture
def predictor(tokenizer: Tokenizer) -> Callable[..., NeuralPredictor]:
    """Two layers, random weights that are not near uniform, float64 unless said."""

    def make(cell: str, dtype: torch.dtype = torch.float64) -> NeuralPredictor:
        torch.manual_seed(1)
        # the example that goes with the smallest width and is small; the default where several do. A model is causal.
        cls, own = CELLS[cell], CELLS.parse(cell)
        causal = [config for config in (own, *cls.EXAMPLES) if not cls.causal_from(config)]
        chosen = min(causal, key=lambda one: (cls.width_multiple(one), cls.num_params(one, 6, 6) > 20_000))
        multiple = cls.width_multiple(chosen)
        config = ModelConfig(width=-(-6 // multiple) * multiple, layers=2, cell=chosen).model_dump()
        model = LanguageModel(ModelConfig.parse({**config, "stack": {"output_norm": "layer"}}), tokenizer.vocab_size)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.7 * torch.randn_like(parameter))
        return NeuralPredictor(model.to(dtype), tokenizer.start_id)

    return make


@pytest.fixture
def text(tokenizer: Tokenizer) -> Callable[..., TokenSplit]:
    """A random text that never shows the last two symbols."""

    def make(length: int, starts: list[int] | None = None) -> TokenSplit:
        ids = np.random.default_rng(3).integers(0, tokenizer.vocab_size - 2, length)
        return TokenSplit(ids, tokenizer.tables, starts=None if starts is None else np.array(starts), checksum="abc")

    return make
