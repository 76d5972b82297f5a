"""Rows of tokens that hold several words."""

import pytest

from evaluate.scored import TEXT, make_model, rows
from unrolled.core.errors import UsageError
from unrolled.predict import NeuralPredictor
from unrolled.tokenizer import TOKENIZERS, Tokenizer


def made(base: dict) -> Tokenizer:
    config = TOKENIZERS.parse({"name": "multiword", "k": 4, "min_count": 1, "base": base})
    return TOKENIZERS["multiword"].train(config, [(TEXT + "\n").encode()])


@pytest.mark.parametrize("base", [{"name": "word", "min_count": 1}, {"name": "bpe", "size": 290}])
def test_tokens_are_at_their_places_and_words_are_refused(base: dict):
    tokenizer = made(base)
    predictor = NeuralPredictor(make_model(tokenizer.vocab_size), tokenizer.start_id)
    found = rows(predictor, tokenizer, unit="token")
    assert [row.id for row in found] == tokenizer.encode(TEXT, end=True)
    for row in found[:-1]:
        assert row.offset is not None
        assert row.id is not None
        piece = tokenizer.pieces[row.id].decode(errors="ignore").strip(" ") or " "
        assert "".join(TEXT[row.offset :].split()).startswith("".join(piece.split())), row
    assert any(row.id >= tokenizer.base.vocab_size for row in found)  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="holds several words, so that each has no surprisal of its own"):
        rows(predictor, tokenizer)
    plain = "naïve\nA\n"
    assert [row.text for row in rows(predictor, tokenizer, plain) if row.unit.kind == "word"] == ["naïve", "A"]
