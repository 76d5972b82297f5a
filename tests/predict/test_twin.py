"""Predictors for several threads: packed weights shared, numbers of a row the same whatever is beside it."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled.core.tree import leaves
from unrolled.kernels.cpu import why_no_library
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import PackedPredictor

pytestmark = pytest.mark.skipif(why_no_library() is not None, reason=str(why_no_library()))

IDS = torch.randint(0, 40, (33, 60), generator=torch.Generator().manual_seed(1))


def packed(cell: str, quantize: Any = None) -> PackedPredictor:
    torch.manual_seed(3)
    config = ModelConfig.parse({"cell": {"name": cell}, "width": 48, "layers": 2})
    return PackedPredictor(LanguageModel(config, 40), 0, quantize=quantize)


def read(predictor: PackedPredictor, rows: Tensor, chunk: int) -> list[Tensor]:
    """The state after the rows of IDS, in the shared form, and the prediction after it."""
    state = predictor.begin(len(rows))
    for part in IDS[rows].split(chunk, 1):
        state = predictor.consume(state, part)
    return [*leaves(predictor.shared_form(state)), predictor.predict(state).log_prob]


@pytest.mark.parametrize("quantize", [None, "bf16", "int8"])
@pytest.mark.parametrize("cell", ["lstm", "mlstm", "gru"])
def test_rows_and_cuts_change_no_bit(cell: str, quantize: Any) -> None:
    first = packed(cell, quantize)
    twin = first.twin()
    wanted = read(twin, torch.arange(33), 60)
    for predictor in (twin, first.twin()):
        for rows, chunk in ((1, 60), (1, 7), (5, 13), (8, 1), (32, 59)):
            found = read(predictor, torch.arange(rows), chunk)
            assert all(torch.equal(a[:rows], b) for a, b in zip(wanted, found, strict=True)), (rows, chunk)


@pytest.mark.parametrize("cell", ["lstm", "mingru", "mamba"])
def test_threads_at_once(cell: str) -> None:
    first = packed(cell)
    rows = [torch.arange(low, low + 8) for low in (0, 8, 16, 24)]
    wanted = [read(first.twin(), one, 20) for one in rows]
    found: list[Any] = [None] * len(rows)

    def run(number: int) -> None:
        twin = first.twin()
        for _ in range(5):
            found[number] = read(twin, rows[number], 20)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(rows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(wanted, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_twins_share_the_packed_weights() -> None:
    for cell in ("lstm", "mingru"):
        first = packed(cell)
        first.consume(first.begin(2), IDS[:2])
        twin = first.twin()
        twin.consume(twin.begin(2), IDS[:2])
        own, others = (_held(one) for one in (first, twin))
        assert own == others
        assert own


def _held(predictor: PackedPredictor) -> set[int]:
    """Where the packed matrices lie."""
    if predictor._body is not None:
        return {one.data_ptr() for one in _tensors(predictor._body.step._packed)}
    made: Any = predictor.model.stack.matrices
    return {one.data_ptr() for matrix in made._made.values() for one in _tensors(matrix._step._packed)}


def _tensors(value: Any) -> list[Tensor]:
    return [one for one in (value.values() if isinstance(value, dict) else value) if isinstance(one, Tensor)]
