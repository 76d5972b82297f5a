"""The HyperLSTM against the layer-norm LSTM that it is where its scales are 1, and against the authors' code."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, sigmoid, tanh
from torch.nn.functional import layer_norm

from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.cells.gated.hyperlstm import HyperLSTM, HyperLSTMConfig, HyperLSTMState
from unrolled.kernels.dispatch import Compute

B, T, IN, N, HYPER, E = 2, 6, 5, 4, 3, 2
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "hyperlstm.json").read_text())


def regroup(value: Tensor, dim: int = 0) -> Tensor:
    """Four gates in the order i, j, f, o, put into the order i, f, j, o."""
    i, j, f, o = value.chunk(4, dim)
    return torch.cat([i, f, j, o], dim)


@pytest.mark.parametrize("backend", ["reference", "generic", "auto"])
def test_scales_of_one_make_a_layer_norm_lstm(backend: str) -> None:
    torch.manual_seed(0)
    steps, n = 8, 16
    cell = HyperLSTM(IN, n, HyperLSTMConfig(hyper=7, embedding=E)).double()
    cell.compute = Compute(backend=backend)
    with torch.no_grad():
        for name in ("weight_ih", "weight_hh", "bias", "gain", "shift", "gain_c", "shift_c"):
            parameter = cell.get_parameter(name)
            parameter.add_(torch.randn_like(parameter))
        cell.weight_e.zero_()
        cell.bias_e.fill_(1)
        cell.weight_d[:8] = 1 / E
        cell.weight_d[8:] = 0
    w = {name: parameter.detach() for name, parameter in cell.named_parameters()}
    x, (h, c) = torch.randn(B, steps, IN, dtype=torch.float64), torch.randn(2, B, n, dtype=torch.float64)
    rest = torch.randn(2, B, 7, dtype=torch.float64)
    y, final = cell(x, HyperLSTMState(h, c, *rest))
    for t in range(steps):
        gates = (x[:, t] @ w["weight_ih"].T + h @ w["weight_hh"].T + w["bias"]).view(B, 4, n)
        gates = layer_norm(gates, (n,), eps=1e-3) * w["gain"].view(4, n) + w["shift"].view(4, n)
        i, f, g, o = gates.unbind(1)
        c = sigmoid(f + 1) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(layer_norm(c, (n,), w["gain_c"], w["shift_c"], 1e-3))
        torch.testing.assert_close(y[:, t], h, rtol=0, atol=1e-12)
    torch.testing.assert_close(final.c, c, rtol=0, atol=1e-12)


def their_weights(cell: HyperLSTM, layer_norm: bool) -> None:
    """The authors' code makes its variables in this order; the k-th, from 1 on, is a wave of phase 0.3 k."""
    made = 0

    def variable(*shape: int) -> Tensor:
        nonlocal made
        made += 1
        return wave(*shape, phase=0.3 * made)

    found = {"weight_ih": variable(IN, 4 * N).T, "weight_hh": variable(N, 4 * N).T, "bias": variable(4 * N)}
    from_x_and_h, from_hyper = variable(IN + N, 4 * HYPER), variable(HYPER, 4 * HYPER)
    found["hyper_ih"] = from_x_and_h[:IN].T
    found["hyper_hh"] = torch.cat([from_x_and_h[IN:], from_hyper]).T
    found["hyper_bias"] = variable(4 * HYPER)
    if layer_norm:
        found |= {"hyper_gain": variable(4 * HYPER), "hyper_shift": variable(4 * HYPER)}
        found |= {"hyper_gain_c": variable(HYPER), "hyper_shift_c": variable(HYPER)}
    e, bias_e, d = [], [], []
    for part in range(12):
        e.append(variable(HYPER, E).T)
        if part < 8:
            bias_e.append(variable(E))
        d.append(variable(E, N).T)
    # from gate by gate as they have them within x, h and the bias
    order = [part + gate for part in (0, 4, 8) for gate in (0, 2, 1, 3)]
    if layer_norm:
        found |= {"gain": variable(4 * N), "shift": variable(4 * N)}
        found |= {"gain_c": variable(N), "shift_c": variable(N)}
    with torch.no_grad():
        for name, value in found.items():
            cell.get_parameter(name).copy_(value if name.endswith("_c") else regroup(value))
        cell.weight_e.copy_(torch.cat([e[part] for part in order]))
        cell.bias_e.copy_(torch.cat([bias_e[part] for part in order[:8]]))
        cell.weight_d.copy_(torch.stack([d[part] for part in order]))


@pytest.mark.parametrize("layer_norm", [True, False])
def test_numbers_of_the_authors_code(layer_norm: bool) -> None:
    """Their cell in float64: outputs, final states and the gradient of the input."""
    cell = HyperLSTM(IN, N, HyperLSTMConfig(hyper=HYPER, embedding=E, layer_norm=layer_norm)).double()
    their_weights(cell, layer_norm)
    x = wave(B, T, IN, phase=0.2).requires_grad_()
    (c, hyper_c), (h, hyper_h) = (wave(B, N + HYPER, phase=phase).split([N, HYPER], -1) for phase in (0.6, 0.4))
    y, final = cell(x, HyperLSTMState(h, c, hyper_h, hyper_c))
    c, h = torch.cat([final.c, final.hyper_c], -1), torch.cat([final.h, final.hyper_h], -1)
    loss = (y * wave(*y.shape, phase=1.0)).sum() + (c * wave(*c.shape, phase=2.0)).sum()
    (grad,) = torch.autograd.grad(loss, x)
    for name, value in (("y", y), ("c", c), ("h", h), ("x", grad)):
        kept = torch.tensor(GOLDEN["norm" if layer_norm else "plain"][name], dtype=torch.float64)
        assert_close(value.flatten(), kept, name)


def test_it_starts_as_published() -> None:
    """Scales of 0.1 whatever the state, biases of 0, orthogonal recurrent matrices gate by gate."""
    torch.manual_seed(0)
    cell = HyperLSTM(IN, 8, HyperLSTMConfig(hyper=6, embedding=4))
    scales = cell.weight_d[:8] @ cell.bias_e.view(8, 4, 1)
    torch.testing.assert_close(scales, torch.full_like(scales, 0.1))
    assert not cell.weight_e[:32].any()
    assert not cell.weight_d[8:].any()
    for block in (*cell.weight_hh.chunk(4), *cell.hyper_hh[:, 8:].chunk(4)):
        torch.testing.assert_close(block @ block.T, torch.eye(len(block)), rtol=0, atol=1e-5)
    bound = (6 / (IN + 8 + 4 * 6)) ** 0.5
    assert 0.9 * bound < cell.hyper_ih.abs().max().item() <= bound
    assert 0.9 * bound < cell.hyper_hh[:, :8].abs().max().item() <= bound


def test_a_published_count() -> None:
    """4.92 million parameters with 1,000 units on 49 symbols, as the paper has it, with the softmax."""
    config = HyperLSTMConfig(hyper=128, embedding=4)
    assert round((HyperLSTM.num_params(config, 49, 1000) + 49 * 1001) / 1e6, 2) == 4.92
