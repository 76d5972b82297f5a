"""Recoding against an LSTM of our own, and what it leaves as it was."""

from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.predictors.build import IDS, parameters, reader
from unrolled.core.errors import UsageError
from unrolled.kernels.dispatch import Compute
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import NeuralPredictor
from unrolled.predict.recode import RecodeConfig, RecodePredictor

ROW = IDS[:1]


def recoded(dtype: torch.dtype = torch.float64, **options: Any) -> RecodePredictor:
    model = reader(dtype)
    return RecodePredictor(model.model, model.start_id, RecodeConfig.model_validate(options))


def lstm_step(model: LanguageModel, token: Tensor, before: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """One step of two LSTM layers, gates i, f, g, o, written out; the new (h, c) of each."""
    x, after = model.embedding.weight[token], []
    for cell, (h, c) in zip(model.stack.cells(), before, strict=True):
        named = dict(cell.named_parameters())
        i, f, g, o = (x @ named["weight_ih"].t() + h @ named["weight_hh"].t() + named["bias"]).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        after.append((h, c))
        x = h
    return after


def signal_of(kind: str, predictor: RecodePredictor, h: Tensor, target: Tensor) -> Tensor:
    head = predictor.model.head
    if kind == "surprisal":
        return -torch.log_softmax(head.logits(h), 1)[0, target]
    probabilities = [torch.softmax(head.logits(h * mask.to(h)), 1) for mask in predictor._masks]
    mean = torch.stack(probabilities).mean(0)
    return -(mean * mean.log()).sum()


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
@pytest.mark.parametrize("kind", ["surprisal", "entropy"])
def test_every_field_of_every_layer_moves_against_its_gradient(kind: str, dtype: torch.dtype, within: float) -> None:
    predictor = recoded(dtype, signal=kind, step=0.7, samples=3, rate=0.3)
    model, step = predictor.model, 0.7
    states = [(torch.zeros(1, 6, dtype=dtype), torch.zeros(1, 6, dtype=dtype)) for _ in range(2)]
    token, state = torch.tensor([predictor.start_id]), predictor.begin(1)
    for target in ROW[0]:
        after = lstm_step(model, token, states)
        flat = [value for pair in after for value in pair]
        gradients = torch.autograd.grad(signal_of(kind, predictor, after[-1][0], target), flat)
        assert all(float(gradient.abs().max()) > 1e-6 for gradient in gradients), "each of them has a part in it"
        moved = [(value - step * gradient).detach() for value, gradient in zip(flat, gradients, strict=True)]
        states = [(moved[0], moved[1]), (moved[2], moved[3])]
        state = predictor.observe(state, target.view(1))
        found = [value for cell in state.here.cells for value in (cell.h, cell.c)]
        assert max(float((a - b).abs().max()) for a, b in zip(found, moved, strict=True)) < within
        token = target.view(1)


def test_recent_moves_the_state_before_what_is_read_again() -> None:
    """Two tokens, two steps of descent: by the model's own windows and gradients."""
    predictor = recoded(signal="recent", step=0.3, memory=2, steps=2)
    model = predictor.model
    text = [predictor.start_id, *ROW[0, :3].tolist()]
    state = predictor.begin(1)
    for t in range(2):  # after the second token there are two inputs with their targets
        state = predictor.observe(state, ROW[:, t])
    cells = model.initial_state(1).cells
    inputs, targets = torch.tensor([text[:2]]), torch.tensor([text[1:3]])
    nats = []
    for _ in range(2):
        leaves = [type(one)(one.h.detach().requires_grad_(), one.c.detach().requires_grad_()) for one in cells]
        total, _, _ = model.loss(inputs, targets, model.initial_state(1)._replace(cells=tuple(leaves)))
        nats.append(float(total.detach()))
        found = torch.autograd.grad(total, [value for one in leaves for value in one])
        cells = tuple(
            type(one)(one.h.detach() - 0.3 * found[2 * i], one.c.detach() - 0.3 * found[2 * i + 1])
            for i, one in enumerate(leaves)
        )
    with torch.no_grad():
        start = model.initial_state(1)._replace(cells=cells)
        total, _, wanted = model.loss(inputs, targets, start)
    assert float(total) < nats[1] < nats[0]
    pairs = zip(state.here.cells, wanted.cells, strict=True)
    assert max(float((a.c - b.c).abs().max()) + float((a.h - b.h).abs().max()) for a, b in pairs) < 1e-12


def test_no_step_changes_nothing() -> None:
    plain = reader()
    for cell in plain.model.stack.cells():
        cell.compute = Compute(backend="reference")
    for kind in ("surprisal", "entropy", "recent"):
        predictor = recoded(signal=kind, step=0, memory=2)
        state, other = predictor.begin(len(IDS)), plain.begin(len(IDS))
        for t in range(IDS.shape[1]):
            assert torch.equal(predictor.predict(state).log_prob, plain.predict(other).log_prob)
            state, other = predictor.observe(state, IDS[:, t]), plain.observe(other, IDS[:, t])


def test_what_was_scored_stays() -> None:
    predictor, plain = recoded(step=5.0), reader()
    first = predictor.window(predictor.begin(len(IDS)), IDS).nll
    wanted = plain.window(plain.begin(len(IDS)), IDS).nll
    assert torch.allclose(first[:, 0], wanted[:, 0], atol=1e-12)
    assert float((first - wanted).abs().max()) > 1e-3


def test_the_signal_falls_and_the_parameters_stay() -> None:
    predictor = recoded(step=1e-3)
    before, model = parameters(predictor), predictor.model
    text = torch.randint(0, predictor.vocab_size, (1, 200), generator=torch.Generator().manual_seed(3))
    state, fallen = predictor.begin(1), 0
    for target in text[0]:
        was = -predictor.predict(state).log_prob[0, target]
        state = predictor.observe(state, target.view(1))
        now = -torch.log_softmax(model.head.logits(state.here.cells[-1].h), 1)[0, target]
        fallen += bool(now < was)
    assert fallen > 190
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(predictor), strict=True))


@pytest.mark.parametrize("cell", ["rnn", "gru", "mlstm", "mogrifier"])
def test_cells_with_a_step(cell: str) -> None:
    torch.manual_seed(2)
    model = LanguageModel(ModelConfig.parse({"width": 6, "layers": 2, "cell": cell}), 13).double()
    plain = NeuralPredictor(model, 0)
    predictor = RecodePredictor(model, 0, RecodeConfig(step=0.5))
    state, other = predictor.observe(predictor.begin(1), ROW[:, 0]), plain.begin(1)
    for mine, theirs in zip(state.here.cells, other.cells, strict=True):
        assert all(not torch.equal(a, b) for a, b in zip(mine, theirs, strict=True)), "every field has moved"


def test_what_is_refused() -> None:
    model = LanguageModel(ModelConfig.parse({"width": 4, "cell": "qrnn"}), 13)
    with pytest.raises(UsageError, match="qrnn has no step"):
        RecodePredictor(model, 0, RecodeConfig())
    predictor = RecodePredictor(model.double(), 0, RecodeConfig(signal="recent", step=0.1, memory=2))
    assert bool(predictor.window(predictor.begin(3), IDS).nll.isfinite().all())
    with pytest.raises(UsageError, match="steps is for the signal recent"):
        recoded(steps=2)
