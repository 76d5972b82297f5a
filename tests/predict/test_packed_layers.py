"""Packed matrices in stacks that are no single program: every mixer, and mixers beside cells with a step."""

import math
from operator import attrgetter
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.cells.build import CAUSAL, Case
from families import first_of_each
from unrolled.cells import CELLS, MixerCell
from unrolled.kernels.cpu import why_no_library
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict.base import Predictor
from unrolled.predict.packed import PackedPredictor
from unrolled.predict.static import NeuralPredictor

pytestmark = pytest.mark.skipif(why_no_library() is not None, reason=str(why_no_library()))

V = 11
MIXERS = [case for case in CAUSAL if issubclass(CELLS[case.name], MixerCell)]


def build(cell: Any, dtype: torch.dtype = torch.float64, **options: Any) -> LanguageModel:
    torch.manual_seed(1)
    config = ModelConfig.parse({"layers": 2, "cell": cell, "stack": {"kind": "residual"}, **options})
    step = math.lcm(*(CELLS[one.name].width_multiple(one) for one in config.layer_cells()))
    model = LanguageModel(config.model_copy(update={"width": -(-8 // step) * step}), V)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.to(dtype).eval()


def ids(batch: int, time: int) -> Tensor:
    return torch.randint(V, (batch, time), generator=torch.Generator().manual_seed(2))


def stepwise(predictor: Predictor, tokens: Tensor, reset: Tensor | None = None) -> Tensor:
    """Nats of every token, predicted and observed one after another."""
    return Predictor.window(predictor, predictor.begin(len(tokens)), tokens, reset).nll


@pytest.mark.parametrize("case", first_of_each(MIXERS, attrgetter("name")), ids=str)
def test_every_mixer(case: Case) -> None:
    model, tokens = build(CELLS[case.name].EXAMPLES[case.index].model_dump()), ids(3, 6)
    reset = torch.zeros(3, 6, dtype=torch.bool)
    reset[1, 3] = True
    plain, packed = NeuralPredictor(model, 0), PackedPredictor(model, 0)
    expected = plain.window(plain.begin(3), tokens, reset).nll
    for found in (stepwise(packed, tokens, reset), packed.window(packed.begin(3), tokens, reset).nll):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cell", ["mingru, lstm, mlp", "rwkv7, gru", "gla, qrnn"])
def test_mixers_beside_cells_with_a_step(cell: str) -> None:
    model, tokens = build(cell, layers=1 + cell.count(","), embedding={"size": 5}), ids(2, 5)
    reset = torch.zeros(2, 5, dtype=torch.bool)
    reset[0, 2] = True
    plain, packed = NeuralPredictor(model, 0), PackedPredictor(model, 0)
    expected = plain.window(plain.begin(2), tokens, reset).nll
    torch.testing.assert_close(stepwise(packed, tokens, reset), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cell", ["mingru", "mamba", "gated_deltanet", "rwkv4"])
@pytest.mark.parametrize("quantize", ["bf16", "int8"])
def test_fewer_bits_are_near_and_other(cell: str, quantize: Any) -> None:
    model, tokens = build(cell, torch.float32), ids(2, 9)
    exact, packed = NeuralPredictor(model, 0), PackedPredictor(model, 0, quantize=quantize)
    expected, found = stepwise(exact, tokens), stepwise(packed, tokens)
    assert packed.precision == quantize
    assert 0 < (found - expected).abs().max() < 0.3
    torch.testing.assert_close(packed.window(packed.begin(2), tokens).nll, found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("cell", "made"), [("s4d", "system"), ("gss", "system"), ("retnet", "_constants")])
def test_what_is_made_of_weights_alone_is_made_once(cell: str, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens, calls = build(cell), ids(1, 6), []
    cls: Any = CELLS[cell]
    make = getattr(cls, made)
    monkeypatch.setattr(cls, made, lambda self, *given: (calls.append(given), make(self, *given))[1])
    stepwise(PackedPredictor(model, 0), tokens)
    assert len(calls) == 2, "once for each layer"
    stepwise(NeuralPredictor(model, 0), tokens)
    assert len(calls) > 2 + 6


def test_the_model_itself_stays_as_it_was() -> None:
    model, tokens = build("gla"), ids(2, 4)
    before = model(tokens).raw
    packed = PackedPredictor(model, 0)
    stepwise(packed, tokens)
    assert all(cell.packed is None for cell in model.stack.cells())  # type: ignore[attr-defined]
    with torch.no_grad():
        for parameter in model.stack.parameters():
            parameter.mul_(0.5)
    assert not torch.allclose(model(tokens).raw, before)
    assert packed.model.num_params() == model.num_params()
