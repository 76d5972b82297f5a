"""Cells that use their place in a stack are decoded by packed weights, or refused in words."""

from collections.abc import Iterator

import pytest
import torch

from train.places import PLACED
from unrolled.cells import CELLS
from unrolled.kernels.cpu import why_no_library
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import NeuralPredictor, PackedPredictor
from unrolled.predict.packed_program import why_not_packed

MISSING = why_no_library()  # asked before a test has a cache of its own


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    for name, cls in PLACED.items():
        CELLS.add(name, cls)
    yield
    for name in PLACED:
        CELLS.remove(name)


@pytest.mark.parametrize(("name", "reason"), [("leaky", None), ("sharer", None), ("hander", None)])
def test_is_decoded_by_packed_weights_or_refused(name: str, reason: str | None) -> None:
    torch.manual_seed(0)
    model = LanguageModel(ModelConfig.parse({"width": 6, "layers": 3, "cell": name}), 9)
    found = why_not_packed(model)
    if reason is not None:
        assert found is not None
        assert reason in found
        return
    if MISSING is not None:
        pytest.skip(MISSING)
    assert found is None
    packed, plain = PackedPredictor(model, 0), NeuralPredictor(model, 0)
    one, other = packed.begin(2), plain.begin(2)
    for token in (1, 5, 3):
        ids = torch.tensor([token, 8 - token])
        torch.testing.assert_close(packed.predict(one).log_prob, plain.predict(other).log_prob, rtol=1e-5, atol=1e-6)
        one, other = packed.observe(one, ids), plain.observe(other, ids)
