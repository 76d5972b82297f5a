"""The whole Mogrifier LSTM, alone and in a language model, against a loop unrolled by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn, sigmoid, tanh

from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.cells import CELLS, Noise
from unrolled.cells.gated.mogrifier import Mogrifier, MogrifierConfig
from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel, ModelConfig

ROUNDS, N = 5, 4
Named = dict[str, Tensor]


def move(module: Any) -> Any:
    """The module in float64, its parameters moved, so that no bias is zero."""
    module.double()
    with torch.no_grad():
        for k, parameter in enumerate(module.parameters()):
            parameter.add_(0.3 * wave(*parameter.shape, phase=k))
    return module


def layer_by_hand(
    p: Named, x: Tensor, h: Tensor, c: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Five rounds and the LSTM with capped input gate, step by step; p: the cell's parameters by name."""
    outputs = []
    for t in range(x.shape[1]):
        v = x[:, t]
        h = h if mask is None else h * mask
        for i in range(1, ROUNDS + 1):
            matrix = p[f"round{i}"] if f"round{i}" in p else p[f"round{i}_out"] @ p[f"round{i}_in"]
            if i % 2:
                v = 2 * sigmoid(h @ matrix.T + p[f"round{i}_bias"]) * v
            else:
                h = 2 * sigmoid(v @ matrix.T + p[f"round{i}_bias"]) * h
        i_, f, g, o = (v @ p["cell.weight_ih"].T + h @ p["cell.weight_hh"].T + p["cell.bias"]).chunk(4, -1)
        f = sigmoid(f)
        c = f * c + torch.minimum(1 - f, sigmoid(i_)) * tanh(g)
        h = sigmoid(o) * tanh(c)
        outputs.append(h)
    return torch.stack(outputs, 1), h, c


def compare(found: list[Tensor], expected: list[Tensor], wanted: Named) -> None:
    """Values, and all gradients of one weighted sum of them."""
    grads = []
    for values in (found, expected):
        loss = torch.stack([(part * wave(*part.shape, phase=k)).sum() for k, part in enumerate(values)]).sum()
        grads.append(torch.autograd.grad(loss, list(wanted.values())))
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert_close(a, b, f"value {k}")
    for name, a, b in zip(wanted, *grads, strict=True):
        assert float(b.abs().max()) > 0, f"no gradient reaches {name}"
        assert_close(a, b, f"gradient of {name}")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rank", [None, 2])
def test_five_rounds(rank: int | None, masked: bool) -> None:
    torch.manual_seed(6)
    cell = move(Mogrifier(5, N, MogrifierConfig(rounds=ROUNDS, rank=rank)))
    x = wave(3, 7, 5).requires_grad_()
    h, c = ((0.5 * wave(3, N, phase=k)).requires_grad_() for k in (1, 2))
    mask = (torch.arange(3 * N) % 3 > 0).double().view(3, N) * 1.5 if masked else None
    noise = None if mask is None else Noise(state_in=mask.unsqueeze(1))
    y, final = cell(x, type(cell.initial_state(1))(h, c), noise=noise)
    named = dict(cell.named_parameters())
    compare([y, *final], list(layer_by_hand(named, x, h, c, mask)), {"x": x, "h": h, "c": c, **named})


@pytest.mark.parametrize("rank", [None, 2])
def test_two_layers_with_summed_output_and_down_projection(rank: int | None) -> None:
    config = {"width": N, "layers": 2, "cell": {"name": "mogrifier", "rank": rank}, "stack": {"kind": "sum"}}
    parsed = ModelConfig.parse({**config, "embedding": {"size": 3, "tied": True}, "head": {"project": 3}})
    torch.manual_seed(6)
    model = move(LanguageModel(parsed, 7))
    tokens = torch.tensor([[0, 3, 1, 6, 2], [5, 4, 4, 0, 1], [2, 2, 6, 3, 5]])
    named = dict(model.named_parameters())
    out = model(tokens)
    log_prob, _ = model.head.log_prob(out.raw)

    x, total, states = named["embedding.weight"][tokens], 0.0, []
    for i in range(2):
        start = f"stack.layers.{i}."
        zero = torch.zeros(3, N, dtype=torch.float64)
        own = {name.removeprefix(start): value for name, value in named.items() if name.startswith(start)}
        x, h, c = layer_by_hand(own, x, zero, zero)
        total, states = total + x, [*states, h, c]
    logits = total @ named["head.projection"].T @ named["embedding.weight"].T + named["head.bias"]
    found = [log_prob, *(part for state in out.state.cells for part in state)]
    compare(found, [logits.log_softmax(-1), *states], named)


def test_no_rounds_and_no_cap_are_torchs_lstm() -> None:
    torch.manual_seed(6)
    cell = Mogrifier(5, N, MogrifierConfig.parse({"rounds": 0, "cell": "lstm"}))
    other = nn.LSTM(5, N, batch_first=True)
    names = {"cell.weight_ih": "weight_ih_l0", "cell.weight_hh": "weight_hh_l0", "cell.bias": "bias_ih_l0"}
    with torch.no_grad():
        for own, given in names.items():
            other.get_parameter(given).copy_(cell.get_parameter(own))
        other.get_parameter("bias_hh_l0").zero_()
    x = wave(3, 9, 5, dtype=torch.float32)
    results = []
    for module in (cell, other):
        inputs = x.clone().requires_grad_()
        y, final = module(inputs)
        final = [part.view(3, N) for part in final]
        ((y * wave(*y.shape, phase=1.0, dtype=y.dtype)).sum() + final[1].square().sum()).backward()
        keys = names.values() if module is other else names
        results.append([y, *final, inputs.grad, *(module.get_parameter(key).grad for key in keys)])
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("inner", ["gru", "mlstm", {"name": "mgru", "reset": "hidden"}], ids=str)
def test_other_wrapped_cells_are_plain_configs(inner: Any) -> None:
    config = MogrifierConfig.parse({"rounds": 2, "cell": inner})
    cell = move(Mogrifier(5, N, config))
    plain = CELLS[config.cell.name](5, N, config.cell).double()
    plain.load_state_dict({key.removeprefix("cell."): v for key, v in cell.state_dict().items() if "cell." in key})
    x = wave(2, 4, 5)
    assert float((cell(x)[0] - plain(x)[0]).detach().abs().max()) > 1e-3
    model = LanguageModel(ModelConfig.parse({"width": N, "layers": 2, "cell": config.model_dump()}), 7)
    assert model(torch.tensor([[1, 2, 3]])).raw.shape == (1, 3, N)


def test_variance_scaling_is_one_over_fan_in_after_truncation() -> None:
    torch.manual_seed(8)
    inner = {"name": "lstm", "cap_input_gate": True, "init": "variance_scaling"}
    cell = Mogrifier(80, 120, MogrifierConfig.parse({"rounds": 2, "init": "variance_scaling", "cell": inner}))
    expected = {"round1": 120, "round2": 80, "cell.weight_ih": 80, "cell.weight_hh": 120}
    for name, fan_in in expected.items():
        weight = cell.get_parameter(name).detach()
        assert float(weight.square().mean()) * fan_in == pytest.approx(1.006, rel=0.05), name
        assert float(weight.abs().max()) <= 2 * (1.3 / fan_in) ** 0.5
    i, f, g, o = cell.get_parameter("cell.bias").detach().chunk(4)
    assert float(torch.cat([i, f - 1, g, o]).square().mean()) * 120 == pytest.approx(1.006, rel=0.2)


def test_initialisation_of_rounds_of_low_rank_is_fixed() -> None:
    with pytest.raises(UsageError, match="one initialisation only"):
        MogrifierConfig.parse({"rank": 2, "init": "variance_scaling"})
