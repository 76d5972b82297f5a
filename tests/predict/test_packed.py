"""Prepared weights: the model's own figures, or those of its weights in fewer bits."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.core.tree import leaves, select_rows
from unrolled.kernels.cell_loop import Weights
from unrolled.kernels.cell_loop.loop import run_loop, silent
from unrolled.kernels.cpu import why_no_library
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import NeuralPredictor, PackedPredictor, Predictor, PredictorConfig, adapt, packed_program

pytestmark = pytest.mark.skipif(why_no_library() is not None, reason=str(why_no_library()))

V = 23
CELLS = [
    {"name": "lstm", "bias": "two"}, {"name": "lstm", "projection": 12, "cap_input_gate": True}, {"name": "gru"},
    {"name": "rnn"}, {"name": "gru", "layer_norm": True}, {"name": "lstm", "layer_norm": True},
    {"name": "mlstm", "weight_norm": True}, {"name": "mgru", "sharing": "per_gate"},
    {"name": "mlstm", "sharing": "integration"}, {"name": "mogrifier", "rounds": 3, "rank": 4},
]  # fmt: skip


def build(cell: Any = "lstm", dtype: torch.dtype = torch.float64, **options: Any) -> LanguageModel:
    torch.manual_seed(1)
    model = LanguageModel(ModelConfig.parse({"width": 20, "layers": 2, "cell": cell, **options}), V)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return model.to(dtype).eval()


def ids(batch: int, time: int) -> Tensor:
    return torch.randint(V, (batch, time), generator=torch.Generator().manual_seed(2))


def stepwise(predictor: Predictor, tokens: Tensor, reset: Tensor | None = None) -> Tensor:
    """Nats of every token, predicted and observed one after another."""
    return Predictor.window(predictor, predictor.begin(len(tokens)), tokens, reset).nll


@pytest.mark.parametrize("options", [
    {}, {"stack": {"kind": "sum"}}, {"stack": {"kind": "skip"}, "layers": 3},
    {"stack": {"output_norm": "rms"}}, {"stack": {"kind": "residual"}},
    {"stack": {"kind": "residual", "norm": "rms"}, "embedding": {"size": 7}},
    {"embedding": {"size": 6, "project": 9}}, {"embedding": {"one_hot": True}},
    {"embedding": {"size": 6, "tied": True}}, {"head": {"name": "softmax", "project": 5, "bias": False}},
    {"dropout": {"zoneout": {"c": 0.1, "h": 0.3}}}, {"head": {"name": "mos", "components": 2}},
    {"head": {"name": "pointer", "length": 4}}, {"head": {"name": "softmax", "cap": 0.6}},
    {"stack": {"kind": "residual", "norm_bias": False, "input_norm": "layer"}},
    {"embedding": {"size": 6, "project": 9, "multiplier": 2.5}}, {"embedding": {"size": 20, "multiplier": 0.4}},
], ids=str)  # fmt: skip
def test_any_model_of_step_cells(options: dict[str, Any]) -> None:
    model, tokens = build(**options), ids(3, 8)
    plain, prepared = NeuralPredictor(model, 0), PackedPredictor(model, 0)
    expected = plain.window(plain.begin(3), tokens).nll
    torch.testing.assert_close(stepwise(prepared, tokens), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(prepared.window(prepared.begin(3), tokens).nll, expected, rtol=1e-10, atol=1e-10)


def test_a_cap_comes_before_the_temperature() -> None:
    model, tokens = build(head={"name": "softmax", "cap": 0.6}), ids(3, 8)
    plain, prepared = NeuralPredictor(model, 0, 0.7), PackedPredictor(model, 0, 0.7)
    expected = plain.window(plain.begin(3), tokens).nll
    torch.testing.assert_close(stepwise(prepared, tokens), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(prepared.window(prepared.begin(3), tokens).nll, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_any_cell_with_resets_and_in_any_batch(cell: dict[str, Any]) -> None:
    model, tokens = build(cell), ids(4, 9)
    reset = torch.zeros(4, 9, dtype=torch.bool)
    reset[1, 0] = reset[2, 4] = reset[2, 5] = True
    plain, prepared = NeuralPredictor(model, 0, 1.3), PackedPredictor(model, 0, 1.3)
    expected = plain.window(plain.begin(4), tokens, reset)
    found = prepared.window(prepared.begin(4), tokens, reset)
    for one, other in ((stepwise(prepared, tokens, reset), expected.nll), (found.nll, expected.nll)):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    # a window and then a step, of some of the rows
    chosen = torch.tensor([2, 0])
    after = prepared.observe(select_rows(found.state, chosen), tokens[chosen, 0])
    expected_after = plain.observe(select_rows(expected.state, chosen), tokens[chosen, 0])
    torch.testing.assert_close(prepared.predict(after).log_prob, plain.predict(expected_after).log_prob)
    torch.testing.assert_close(after.cells[0], torch.cat(list(leaves(expected_after.cells)), 1))


def rounded(model: LanguageModel) -> LanguageModel:
    """Every matrix that is multiplied rounded to bf16; the table of the embedding is only looked up."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in (*model.stack.parameters(), *model.head.parameters()):
            if parameter.dim() > 1:
                parameter.copy_(parameter.bfloat16())
    return model


@pytest.mark.parametrize("cell", ["lstm", "gru", "mlstm", "mogrifier"])
def test_bf16_is_the_model_with_rounded_matrices(cell: str) -> None:
    model, tokens = build(cell, torch.float32), ids(2, 9)
    exact, found = NeuralPredictor(model, 0), PackedPredictor(model, 0, quantize="bf16")
    reference = NeuralPredictor(rounded(model), 0)
    expected = reference.window(reference.begin(2), tokens).nll
    torch.testing.assert_close(found.window(found.begin(2), tokens).nll, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stepwise(found, tokens), expected, rtol=1e-4, atol=1e-4)
    assert (stepwise(exact, tokens) - expected).abs().max() > 1e-3


class Int8Weights(Weights):
    """The definition: both sides of a product as integers with a scale for each row."""

    def linear(self, name: str, v: Tensor, add: Tensor | None = None) -> Tensor:
        (v, v_scale), (weight, scale) = self.whole(v), self.whole(self.named[self.prefix + name])
        y = v @ weight.t() * v_scale * scale.t()
        return y if add is None else y + add

    @staticmethod
    def whole(rows: Tensor) -> tuple[Tensor, Tensor]:
        scale = rows.abs().amax(-1, keepdim=True) / 127
        return (rows / scale.where(scale > 0, 1)).round(), scale


@pytest.mark.parametrize("cell", ["lstm", "gru", "mlstm", "mogrifier"])
def test_int8_is_what_it_is_defined_to_be(cell: str) -> None:
    model, tokens = build(cell, torch.float32), ids(2, 5)
    found = PackedPredictor(model, 0, quantize="int8")
    inputs = torch.cat([torch.zeros(2, 1, dtype=torch.int64), tokens], 1)
    with torch.no_grad():
        x, exact = model.embedding(inputs), model(inputs).raw
        for layer in model.stack.cells():
            weights = Int8Weights(layer.effective_weights())  # type: ignore[attr-defined]
            x, _ = run_loop(layer, x, layer.initial_state(2), None, None, silent, weights, weights)  # type: ignore
    scores = found.window(found.begin(2), tokens)
    assert scores.hidden is not None
    hidden = torch.cat([scores.hidden, scores.state.hidden.unsqueeze(1)], 1)
    # a number on the border between two integers may fall to either side, and its trace is seen ever after
    assert (hidden - x).abs().max() < 0.2 * (exact - x).abs().max()
    torch.testing.assert_close(hidden[:, 0], x[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("quantize", ["bf16", "int8"])
def test_windows_equal_steps_where_weights_are_quantised(quantize: Any) -> None:
    model, tokens = build("mlstm", torch.float32), ids(5, 9)
    reset = torch.zeros(5, 9, dtype=torch.bool)
    reset[0, 3] = reset[4, 8] = True
    predictor = PackedPredictor(model, 0, quantize=quantize)
    whole = predictor.window(predictor.begin(5), tokens, reset)
    torch.testing.assert_close(stepwise(predictor, tokens, reset), whole.nll, rtol=1e-6, atol=1e-6)
    first = predictor.window(predictor.begin(5), tokens[:, :4], reset[:, :4])
    rest = predictor.window(first.state, tokens[:, 4:], reset[:, 4:])
    assert torch.equal(rest.state.cells[0], whole.state.cells[0])
    assert torch.equal(rest.state.hidden, whole.state.hidden)
    alone = predictor.window(predictor.begin(1), tokens[2:3])
    assert torch.equal(alone.state.cells[0], whole.state.cells[0][2:3])


def test_a_state_stays_as_it_was() -> None:
    predictor = PackedPredictor(build(), 0)
    first = predictor.begin(2)
    kept = [part.clone() for part in (first.cells[0], first.hidden, predictor.predict(first).log_prob)]
    second = predictor.observe(first, torch.tensor([3, 4]))
    predictor.observe(second, torch.tensor([5, 6]))
    for part, value in zip((first.cells[0], first.hidden, predictor.predict(first).log_prob), kept, strict=True):
        assert torch.equal(part, value)


def test_what_is_recorded() -> None:
    model = build(dtype=torch.float32)
    predictor = adapt(NeuralPredictor(model, 0), PredictorConfig.parse({"quantize": "int8"}))
    assert isinstance(predictor, PackedPredictor)
    assert predictor.precision == "int8"
    assert predictor.options == {"quantize": "int8"}
    plain = adapt(NeuralPredictor(model, 0), PredictorConfig(), stepwise=True)
    assert isinstance(plain, PackedPredictor)
    assert (plain.precision, plain.options, plain.kind) == ("float32", {}, "static")


@pytest.mark.parametrize(("make", "quantize", "reason"), [
    (lambda: build(stack={"kind": "residual", "mlp": 1.5}), None, "uses gelu, for which there is no native operation"),
    (lambda: build(), "int8", "that is for float32, not for float64; leave out quantize"),
    (lambda: build(compute={"precision": "bf16"}), None, "asks for bf16 products"),
    (lambda: build(compute={"backend": "generic"}), None, "backend generic is asked for"),
])  # fmt: skip
def test_what_cannot_be_prepared(make: Callable[[], LanguageModel], quantize: Any, reason: str) -> None:
    model = make()
    with pytest.raises(UsageError, match=reason):
        PackedPredictor(model, 0, quantize=quantize)
    if quantize is None:
        assert type(adapt(NeuralPredictor(model, 0), PredictorConfig(), stepwise=True)) is NeuralPredictor


def test_without_the_library_only_quantised_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_program, "why_no_library", lambda: "it is not built")
    model = build(dtype=torch.float32)
    assert type(adapt(NeuralPredictor(model, 0), PredictorConfig(), stepwise=True)) is NeuralPredictor
    with pytest.raises(UsageError, match="it is not built; leave out quantize"):
        adapt(NeuralPredictor(model, 0), PredictorConfig.parse({"quantize": "int8"}))


def test_quantised_weights_do_not_learn() -> None:
    for other in ({"dynamic": "krause"}, {"dropout": {"samples": 2}}):
        with pytest.raises(UsageError, match=r"quantised weights.* not combined"):
            PredictorConfig.parse({"quantize": "int8", **other})
    cached = adapt(
        NeuralPredictor(build(dtype=torch.float32), 0),
        PredictorConfig.parse({"quantize": "int8", "cache": {"length": 3}}),
    )
    assert cached.precision == "int8"
    assert stepwise(cached, ids(2, 6)).isfinite().all()
