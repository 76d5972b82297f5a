"""Every check can fail: on a cell that is broken in the way it looks for."""

from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError

from conformance.tolerance import TOLERANCE, assert_close
from unrolled.cells.gated.lstm import LSTM, LSTMConfig
from unrolled.model import LanguageModel, ModelConfig

from .broken import BROKEN, Start, TooNarrow
from .build import MakeCell
from .checks import CHECKS


def test_each_check_has_a_broken_cell() -> None:
    assert set(BROKEN) == set(CHECKS)


@pytest.mark.parametrize(
    ("name", "make_cell"),
    [pytest.param(name, cls, id=f"{name}-{cls.__name__}") for name, broken in BROKEN.items() for cls in broken],
)
def test_check_notices(name: str, make_cell: MakeCell) -> None:
    with pytest.raises(AssertionError):
        CHECKS[name](make_cell)


@pytest.mark.parametrize("name", CHECKS)
def test_a_learned_initial_state_passes(name: str) -> None:
    CHECKS[name](Start)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_tolerance_has_an_edge(dtype: torch.dtype) -> None:
    value = torch.linspace(1, 2, 50, dtype=torch.float64)
    assert_close(value * (1 + 0.9 * TOLERANCE[dtype]), value, "just inside", dtype)
    with pytest.raises(AssertionError, match="just outside"):
        assert_close(value * (1 + 1.1 * TOLERANCE[dtype]), value, "just outside", dtype)
    with pytest.raises(AssertionError, match="nan"):
        assert_close(value * float("nan"), value, "nan", dtype)


def test_memory_is_poisoned() -> None:
    assert torch.empty(3).isnan().all()
    assert torch.ones(2).new_empty(3, dtype=torch.float64).isnan().all()


def test_shapes_are_checked() -> None:
    cell: Any = LSTM(3, 4, LSTMConfig())
    cell(torch.zeros(2, 5, 3))
    with pytest.raises(TypeCheckError, match="x"):
        cell(torch.zeros(2, 5, 4))
    with pytest.raises(TypeCheckError, match="reset"):
        cell(torch.zeros(2, 5, 3), None, torch.zeros(2, 4, dtype=torch.bool))
    with pytest.raises(TypeCheckError, match="return"):
        TooNarrow(3, 4)(torch.zeros(2, 5, 3))
    model = LanguageModel(ModelConfig(width=4), 7)
    tokens = torch.zeros(2, 3, dtype=torch.long)
    model.loss(tokens, tokens)
    with pytest.raises(TypeCheckError, match="targets"):
        model.loss(tokens, tokens[:, 1:])
    with pytest.raises(TypeCheckError, match="tokens"):
        model(tokens.float())
    with pytest.raises(TypeCheckError, match="h"):
        model.head.log_prob(torch.zeros(2, 5))
