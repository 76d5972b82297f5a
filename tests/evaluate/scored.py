"""A text, tokenizers and models whose words are scored."""

from typing import Any

import torch

from unrolled.data.reading import Part
from unrolled.evaluate import ScoreConfig, Scored, read_text, score_text
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import (
    Predictor,
)
from unrolled.tokenizer import TOKENIZERS, Tokenizer

__all__ = ["TEXT", "TOKENIZER", "make_model", "make_tokenizer", "part", "rows"]


TEXT = "The cat  sat, on\tthe mat.\n\n über naïve dogs \nA cat's\n\n\nlast line is open"


TOKENIZER = ["word", "bpe", "bpe-line", "byte", "char"]


def make_tokenizer(kind: str) -> Tokenizer:
    """Trained on part of the text, so that some words are unknown."""
    name, _, end = kind.partition("-")
    cls = TOKENIZERS[name]
    options: dict[str, Any] = {"name": name}
    if name == "bpe":
        options |= {"size": 290, "end": end or "document"}
    return cls.train(
        cls.Config.parse(options), [(TEXT if name == "char" else (TEXT[:40] + "\n") * 4 + "rare\n").encode()]
    )


def make_model(size: int, **config: Any) -> LanguageModel:
    torch.manual_seed(1)
    model = LanguageModel(ModelConfig.parse({"width": 8, "layers": 1, "cell": "lstm", **config}), size).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


def part(text: str | bytes) -> Part:
    data = text if isinstance(text, bytes) else text.encode()
    return Part("text", make=lambda: data)


def rows(predictor: Predictor, tokenizer: Tokenizer, text: str | bytes = TEXT, **config: Any) -> list[Scored]:
    blocks = read_text(part(text), utf8=not tokenizer.reads_bytes)
    return list(score_text(predictor, tokenizer, blocks, ScoreConfig.parse(config)))
