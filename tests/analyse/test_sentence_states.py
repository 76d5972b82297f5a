"""States of sentences in batches against one sentence at a time, step by step through the model's own trace."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from unrolled.analyse import StatesConfig, sentence_states
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.predict import NeuralPredictor
from unrolled.tokenizer import Tokenizer

TEXTS = ["abc", "", "hello", "a b c d e f g h i j k l", "abd", "lll\nk", "a", "hello"]
TEXTS = ["".join(sign for sign in text if sign in "abcdefghijkl \n") for text in TEXTS]


def one_by_one(predictor: NeuralPredictor, ids: list[int], key: str, pool: str) -> np.ndarray:
    """The traced internal ``key`` after the start symbol and each of ids: the last, or the mean without the first."""
    steps = predictor.model.trace(torch.tensor([[predictor.start_id, *ids]]))
    values = torch.stack([step[key][0] for step in steps])
    return (values[-1] if pool == "last" or not ids else values[1:].mean(0)).numpy()


@pytest.mark.parametrize("cell", ["lstm", "mlstm", "gru", "rnn", "qrnn", "mogrifier"])
@pytest.mark.parametrize("pool", ["last", "mean"])
@pytest.mark.parametrize("layer", [0, 1])
def test_batches_change_nothing(
    cell: str, pool: str, layer: int, predictor: Callable[..., NeuralPredictor], tokenizer: Tokenizer
) -> None:
    model = predictor(cell)
    fields = [name for name in model.model.initial_state(1).cells[layer]._fields if name in ("h", "c")]
    for state in fields:
        wanted = np.stack([one_by_one(model, tokenizer.encode(text), f"{layer}.{state}", pool) for text in TEXTS])
        for batch in (1, 3, 64):
            config = StatesConfig.parse({"layer": layer, "state": state, "pool": pool, "batch": batch})
            found = sentence_states(model, tokenizer, TEXTS, config)
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)
        assert np.abs(wanted[0] - wanted[2]).max() > 1e-3


def test_defaults_and_refusals(predictor: Callable[..., NeuralPredictor], tokenizer: Tokenizer) -> None:
    model = predictor("lstm")
    state = {"layer": 1, "state": "c", "pool": "last"}
    np.testing.assert_array_equal(
        sentence_states(model, tokenizer, TEXTS), sentence_states(model, tokenizer, TEXTS, StatesConfig.parse(state))
    )
    assert StatesConfig().chosen(predictor("gru").model.initial_state(1).cells) == (1, "h")
    with pytest.raises(UsageError, match="no layer 2; its layers are 0 to 1"):
        sentence_states(model, tokenizer, TEXTS, StatesConfig(layer=2))
    with pytest.raises(UsageError, match="unknown state of layer 1: 'q'; known: c, h"):
        sentence_states(model, tokenizer, TEXTS, StatesConfig(state="q"))
    with torch.no_grad():
        model.model.embedding.weight[tokenizer.encode("a")] = torch.nan
    with pytest.raises(UnrolledError, match="is not a finite number"):
        sentence_states(model, tokenizer, TEXTS)


def test_progress(predictor: Callable[..., NeuralPredictor], tokenizer: Tokenizer) -> None:
    heard: list[tuple[int, int]] = []
    sentence_states(
        predictor("gru"), tokenizer, TEXTS, StatesConfig(batch=3), lambda done, total, _: heard.append((done, total))
    )
    assert heard == [(3, 8), (6, 8), (8, 8)]
