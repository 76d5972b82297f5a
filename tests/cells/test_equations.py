"""Cells against their equations, written out here once more, by hand and in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn, sigmoid, tanh

from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.cells import CELLS

N, IN, FACTOR = 4, 5, 3


def make(**config: Any) -> Any:
    parsed = CELLS.parse(config)
    torch.manual_seed(4)
    cell = CELLS[parsed.name](IN, N, parsed).double()
    with torch.no_grad():
        for k, parameter in enumerate(cell.parameters()):
            parameter.add_(0.3 * wave(*parameter.shape, phase=k))
    return cell


def weights(cell: Any) -> Any:
    return type("W", (), {name: value.detach() for name, value in cell.named_parameters()})


def run(cell: Any) -> tuple[Tensor, tuple[Tensor, ...], Tensor, list[Tensor]]:
    """x, starting state, y of the cell, its final state."""
    x = wave(2, 6, IN, phase=0.2)
    state = tuple(0.5 * wave(*part.shape, phase=k) for k, part in enumerate(cell.initial_state(2)))
    y, final = cell(x, type(cell.initial_state(1))(*state))
    return x, state, y, list(final)


def norm(v: Tensor, gain: Tensor) -> Tensor:
    """Layer norm without shift, from its definition."""
    centred = v - v.mean(-1, keepdim=True)
    return gain * centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def test_mlstm_with_a_factor() -> None:
    cell = make(name="mlstm", factor=FACTOR)
    w = weights(cell)
    x, (h, c), y, final = run(cell)
    for t in range(x.shape[1]):
        m = (x[:, t] @ w.weight_mx.T) * (h @ w.weight_mh.T)
        i, f, g, o = (x[:, t] @ w.weight_x.T + m @ w.weight_m.T + w.bias).chunk(4, -1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        assert_close(y[:, t], h, f"h at step {t}")
    assert_close(final[1], c, "c")


def test_mlstm_is_torchs_lstm_cell_fed_m() -> None:
    cell = make(name="mlstm")
    w = weights(cell)
    inner = nn.LSTMCell(IN, N, dtype=torch.float64)
    inner.load_state_dict(
        {"weight_ih": w.weight_x, "weight_hh": w.weight_m, "bias_ih": w.bias, "bias_hh": torch.zeros_like(w.bias)}
    )
    x, (h, c), y, _ = run(cell)
    for t in range(x.shape[1]):
        m = (x[:, t] @ w.weight_mx.T) * (h @ w.weight_mh.T)
        h, c = inner(x[:, t], (m, c))
        assert_close(y[:, t], h, f"h at step {t}")


def test_early_form() -> None:
    cell = make(name="mlstm", form="early", factor=FACTOR)
    w = weights(cell)
    x, (h, c), y, final = run(cell)
    b_i, b_f, b_h, b_o = w.bias.chunk(4)
    for t in range(x.shape[1]):
        m = (x[:, t] @ w.weight_mx.T) * (h @ w.weight_mh.T)
        i, f, g, o = (x[:, t] @ w.weight_x.T + m @ w.weight_m.T).chunk(4, -1)
        c = sigmoid(f + b_f) * c + sigmoid(i + b_i) * g
        h = tanh(sigmoid(o + b_o) * c + b_h)
        assert_close(y[:, t], h, f"h at step {t}")
    assert_close(final[1], c, "c")


def test_coupled_gates_and_factor_bias() -> None:
    cell = make(name="mlstm", coupled=True, factor_bias=1.0)
    w = weights(cell)
    x, (h, c), y, _ = run(cell)
    for t in range(x.shape[1]):
        m = (x[:, t] @ w.weight_mx.T + w.bias_mx) * (h @ w.weight_mh.T)
        f, g, o = (x[:, t] @ w.weight_x.T + m @ w.weight_m.T + w.bias).chunk(3, -1)
        c = sigmoid(f) * c + (1 - sigmoid(f)) * tanh(g)
        h = sigmoid(o) * tanh(c)
        assert_close(y[:, t], h, f"h at step {t}")


def test_mrnn() -> None:
    cell = make(name="mrnn", factor=FACTOR)
    w = weights(cell)
    x, (h,), y, final = run(cell)
    for t in range(x.shape[1]):
        # the factored tensor of the paper: a recurrent matrix made by the input
        recurrent = w.weight_m @ torch.diag_embed(x[:, t] @ w.weight_mx.T) @ w.weight_mh
        h = tanh(x[:, t] @ w.weight_x.T + (recurrent @ h.unsqueeze(-1)).squeeze(-1) + w.bias)
        assert_close(y[:, t], h, f"h at step {t}")
    assert_close(final[0], h, "final h")


@pytest.mark.parametrize("bias", ["one", "two"])
@pytest.mark.parametrize("coupled", [False, True])
def test_lstm_with_layer_norm(bias: str, coupled: bool) -> None:
    cell = make(name="lstm", layer_norm=True, bias=bias, coupled=coupled)
    w = weights(cell)
    b = w.bias if bias == "one" else w.bias_ih + w.bias_hh
    x, (h, c), y, _ = run(cell)
    for t in range(x.shape[1]):
        gates = norm(x[:, t] @ w.weight_ih.T, w.gain_x) + norm(h @ w.weight_hh.T, w.gain_h) + b
        *i, f, g, o = gates.split(N, -1)
        f = sigmoid(f)
        c = f * c + (1 - f if coupled else sigmoid(i[0])) * tanh(g)
        h = sigmoid(o) * tanh(norm(c, w.gain_c) + w.shift_c)
        assert_close(y[:, t], h, f"h at step {t}")


@pytest.mark.parametrize("layer_norm", [False, True])
def test_gru_with_the_reset_before(layer_norm: bool) -> None:
    cell = make(name="gru", reset="before", layer_norm=layer_norm)
    w = weights(cell)
    x, (h,), y, _ = run(cell)
    n = 2 * N

    def scaled(v: Tensor, gain: Tensor | None) -> Tensor:
        return v if gain is None else norm(v, gain)

    gains = [w.gain_x[:n], w.gain_x[n:], w.gain_h[:n], w.gain_h[n:]] if layer_norm else [None] * 4
    b = w.bias if layer_norm else w.bias_ih
    extra = torch.zeros_like(b) if layer_norm else w.bias_hh
    for t in range(x.shape[1]):
        into_gates, into_n = (x[:, t] @ w.weight_ih.T).split([n, N], -1)
        gates = scaled(into_gates, gains[0]) + b[:n] + scaled(h @ w.weight_hh.T + extra[:n], gains[2])
        r, z = sigmoid(gates).chunk(2, -1)
        new = tanh(scaled(into_n, gains[1]) + b[n:] + scaled((r * h) @ w.weight_hn.T + extra[n:], gains[3]))
        h = (1 - z) * new + z * h
        assert_close(y[:, t], h, f"h at step {t}")


def test_gru_with_layer_norm() -> None:
    cell = make(name="gru", layer_norm=True)
    w = weights(cell)
    x, (h,), y, _ = run(cell)
    n = 2 * N
    for t in range(x.shape[1]):
        of_x, of_h = x[:, t] @ w.weight_ih.T, h @ w.weight_hh.T
        r, z = sigmoid(norm(of_x[:, :n], w.gain_x[:n]) + norm(of_h[:, :n], w.gain_h[:n]) + w.bias[:n]).chunk(2, -1)
        new = tanh(norm(of_x[:, n:], w.gain_x[n:]) + w.bias[n:] + r * norm(of_h[:, n:], w.gain_h[n:]))
        h = (1 - z) * new + z * h
        assert_close(y[:, t], h, f"h at step {t}")


def test_capped_input_gate_bounds_the_cell_state() -> None:
    capped, free = make(name="lstm", cap_input_gate=True), make(name="lstm")
    with torch.no_grad():
        for cell in (capped, free):
            cell.bias[: 2 * N] = 5.0  # both gates wide open
    x = 5 * wave(2, 60, IN)
    bound = {name: float(cell(x)[1].c.detach().abs().max()) for name, cell in (("capped", capped), ("free", free))}
    assert bound["capped"] <= 1
    assert bound["free"] > 2
