"""Prepared weights: what a row is told does not depend on the rows beside it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.threads import assert_threads_change_no_bit
from unrolled.core.tree import select_rows
from unrolled.kernels.cpu import why_no_library
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import PackedPredictor

pytestmark = pytest.mark.skipif(why_no_library() is not None, reason=str(why_no_library()))

V, ROWS, STEPS = 50, 256, 3
BATCHES = (1, 5, 7, 32, 33, 200)


def build(cell: Any, **options: Any) -> LanguageModel:
    torch.manual_seed(1)
    config = {"width": 40, "layers": 2, "cell": cell, "embedding": {"size": 24}, **options}
    model = LanguageModel(ModelConfig.parse(config), V).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return model


def decode(predictor: PackedPredictor, state: Any, tokens: Tensor) -> list[Tensor]:
    """The log-probabilities (rows, V) that a few tokens (rows, STEPS) are predicted with, and the state after them."""
    found = []
    for token in tokens.unbind(1):
        found.append(predictor.predict(state).log_prob)
        state = predictor.observe(state, token)
    return [*found, predictor.predict(state).log_prob, *state.cells, state.hidden]


def check(predictor: PackedPredictor, own_start: bool) -> None:
    """own_start: let each batch begin by itself, rather than with its rows of what the whole one began with."""
    tokens, start = draw(), predictor.begin(ROWS)
    whole = decode(predictor, start, tokens)
    for rows in BATCHES:
        for part in (torch.arange(rows), torch.arange(ROWS - rows, ROWS)):
            begun = predictor.begin(rows) if own_start else select_rows(start, part)
            for one, other in zip(decode(predictor, begun, tokens[part]), whole, strict=True):
                assert torch.equal(one, other[part]), part


def draw() -> Tensor:
    return torch.randint(V, (ROWS, STEPS), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("quantize", [None, "bf16", "int8"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "mlstm", "mogrifier"])
def test_a_row_is_the_same_in_any_batch(cell: str, quantize: Any) -> None:
    # the first state in float32 is made by torch, as a window is, and its products do depend on the batch
    check(PackedPredictor(build(cell), 0, quantize=quantize), own_start=quantize is not None)


@pytest.mark.parametrize("quantize", [None, "bf16", "int8"])
def test_a_row_is_the_same_with_any_number_of_threads(quantize: Any) -> None:
    predictor = PackedPredictor(build("lstm"), 0, quantize=quantize)
    start = predictor.begin(ROWS)
    assert_threads_change_no_bit(lambda: decode(predictor, start, draw()))


def test_no_rows_at_all() -> None:
    predictor = PackedPredictor(build("lstm"), 0, quantize="int8")
    state = select_rows(predictor.begin(2), torch.arange(0))
    assert predictor.predict(predictor.observe(state, torch.arange(0))).log_prob.shape == (0, V)
