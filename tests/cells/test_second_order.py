"""The multiplicative cells' second-order term: how its forms contain each other, and what each option does."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn, sigmoid, tanh

from cells.second_order import CELL_NAMES, IN, SHARINGS, N, make
from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.cells import CELLS
from unrolled.core.errors import UsageError
from unrolled.kernels.dispatch import Compute


def start(cell: Any, rows: int = 3) -> Any:
    zero = cell.initial_state(rows, dtype=torch.float64)
    return type(zero)(*(0.5 * wave(*part.shape, phase=k) for k, part in enumerate(zero)))


def outputs(cell: Any, time: int = 5) -> Tensor:
    return cell(wave(3, time, IN, phase=0.3), start(cell))[0]


def weights(cell: Any) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in cell.effective_weights().items()}


def tie(shared: Any, each: Any) -> None:
    """Give every gate of ``each`` the factors of ``shared``, and the readouts of ``shared``."""
    own, given = dict(each.named_parameters()), dict(shared.named_parameters())
    with torch.no_grad():
        for name, value in own.items():
            if name in ("weight_mx", "weight_mh") and value.shape != given[name].shape:
                value.copy_(given[name].repeat(len(value) // len(given[name]), 1))
            elif name == "weight_mh_n":
                value.copy_(given["weight_mh"])
            else:
                value.copy_(given[name].reshape(value.shape))


def dyadic(cell: Any) -> None:
    """Weights of a few bits, so that sums of their products are exact in whatever order."""
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_((8 * parameter).round() / 8)


@pytest.mark.parametrize("sharing", ["per_gate", "shared_recurrent", "shared_input"])
@pytest.mark.parametrize(
    ("name", "reset"), [("mlstm", None), ("mgru", "after"), ("mgru", "before"), ("mgru", "hidden")]
)
def test_tied_factors_are_the_shared_form(name: str, reset: str | None, sharing: str) -> None:
    options: dict[str, Any] = {"reset": reset} if reset else {}
    factor = None if reset == "before" else 3
    shared = make(name, factor=factor, **options)
    each = make(name, factor=factor, sharing=sharing, **options)
    dyadic(shared)
    tie(shared, each)
    x = (8 * wave(3, 5, IN)).round() / 8
    state = start(shared)
    state = type(state)(*((8 * part).round() / 8 for part in state))
    if reset in (None, "after"):
        shared.compute = each.compute = Compute(backend="reference")
        one, other = shared(x[:, :1], state), each(x[:, :1], state)
        assert torch.equal(one[0], other[0]), "the same bits"
        assert all(torch.equal(a, b) for a, b in zip(one[1], other[1], strict=True))
    assert_close(each(x, state)[0], shared(x, state)[0], "outputs of a window")


@pytest.mark.parametrize("name", CELL_NAMES)
def test_block_readout_is_the_masked_shared_and_the_masked_per_gate_form(name: str) -> None:
    gates = 4 if name == "mlstm" else 3
    block = make(name, sharing="block_readout", factor=2 * gates)
    expected = outputs(block)
    w = weights(block)
    for sharing in ("shared", "per_gate"):
        whole = make(name, sharing=sharing, factor=2 * gates)
        with torch.no_grad():
            for key, value in whole.named_parameters():
                if key in ("weight_mx", "weight_mh"):
                    value.copy_(w[key].repeat(len(value) // len(w[key]), 1))
                elif key == "weight_m":
                    readout = torch.zeros(gates, N, 2 * gates, dtype=torch.float64)
                    for gate in range(gates):
                        readout[gate, :, 2 * gate : 2 * gate + 2] = w["weight_m"][gate]
                    value.copy_(readout.reshape(value.shape))
                else:
                    value.copy_(w[key])
        assert_close(outputs(whole), expected, f"masked {sharing}")


def test_shared_mgru_is_torchs_gru_cell_fed_m() -> None:
    cell = make("mgru", reset="after")
    w = weights(cell)
    inner = nn.GRUCell(IN, N, dtype=torch.float64)
    zero = torch.zeros(3 * N, dtype=torch.float64)
    named = {"weight_ih": w["weight_x"], "weight_hh": w["weight_m"], "bias_ih": w["bias"], "bias_hh": zero}
    inner.load_state_dict(named)
    x, state = wave(3, 5, IN, phase=0.3), start(cell)
    y, h = cell(x, state)[0], state.h
    for t in range(5):
        m = (x[:, t] @ w["weight_mx"].T) * (h @ w["weight_mh"].T)
        step = inner(x[:, t], m)
        z = sigmoid((x[:, t] @ w["weight_x"].T + m @ w["weight_m"].T + w["bias"]).chunk(3, -1)[1])
        h = step - z * m + z * h  # the leak path is that of h, not of m
        assert_close(y[:, t], h, f"h at step {t}")


def term_by_hand(cell: Any, w: dict[str, Tensor], x: Tensor, h: Tensor, gate: int) -> tuple[Tensor, Tensor | None]:
    """m of one gate and the matrix that reads it, from the table of the class."""
    layout, config = cell.layout, cell.config
    size = layout.size

    def block(name: str, count: int, rows: int) -> Tensor:
        matrix = torch.cat([w[name], w[f"{name}_n"]]) if f"{name}_n" in w else w[name]
        return matrix if count == 1 else matrix.view(layout.gates, rows, -1)[gate]

    matrix_h = block("weight_mh", layout.recurrents, size)
    if config.sharing == "integration":
        first, second = x @ block("weight_x", layout.gates, N).T, h @ matrix_h.T
        gain = {name: w[name].view(layout.gates, N)[gate] for name in ("gain_xh", "gain_x", "gain_h")}
        return gain["gain_xh"] * first * second + (gain["gain_x"] - 1) * first + gain["gain_h"] * second, None
    factor = x @ block("weight_mx", layout.inputs, size).T
    if config.factor_bias is not None:
        bias = w["bias_mx"]
        factor = factor + (bias if layout.inputs == 1 else bias.view(layout.gates, size)[gate])
    second = h @ matrix_h.T
    m = factor * second if config.product == "multiply" else factor + second
    if config.sharing == "direct":
        return m, None
    parts = [w[name].reshape(-1, size) for name in ("weight_m", "weight_m_n") if name in w]
    return m, torch.cat(parts).view(layout.gates, N, size)[gate]


def read(m: Tensor, matrix: Tensor | None) -> Tensor:
    return m if matrix is None else m @ matrix.T


FORMS = [
    *({"sharing": sharing} for sharing in SHARINGS if sharing != "block_readout"),
    {"sharing": "block_readout", "factor": 12},
    {"sharing": "per_gate", "factor": 3, "weight_norm": True, "factor_bias": 0.5},
    {"sharing": "shared_recurrent", "factor": 7, "factor_bias": 0.5},
    {"sharing": "shared_input", "factor": 3, "product": "add"},
    {"sharing": "integration", "gains": (2.0, 0.5, 0.25), "weight_norm": True},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_mlstm_by_hand(form: dict[str, Any]) -> None:
    cell = make("mlstm", **form)
    w, x, (h, c) = weights(cell), wave(3, 4, IN, phase=0.3), start(cell)
    y, _ = cell(x, start(cell))
    for t in range(4):
        first = (x[:, t] @ w["weight_x"].T + w["bias"]).chunk(4, -1)
        terms = [read(*term_by_hand(cell, w, x[:, t], h, gate)) for gate in range(4)]
        i, f, g, o = (a + b for a, b in zip(first, terms, strict=True))
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        assert_close(y[:, t], h, f"h at step {t}")


@pytest.mark.parametrize("reset", ["after", "before", "hidden"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_mgru_by_hand(form: dict[str, Any], reset: str) -> None:
    if reset == "before" and (form["sharing"] in ("direct", "integration") or form.get("factor") in (3, 7)):
        with pytest.raises(UsageError, match="reset"):
            make("mgru", reset=reset, **form)
        return
    cell = make("mgru", reset=reset, **form)
    w, x, h = weights(cell), wave(3, 4, IN, phase=0.3), start(cell).h
    y, _ = cell(x, start(cell))
    for t in range(4):
        first = (x[:, t] @ w["weight_x"].T + w["bias"]).chunk(3, -1)
        r, z = (sigmoid(first[gate] + read(*term_by_hand(cell, w, x[:, t], h, gate))) for gate in (0, 1))
        m, matrix = term_by_hand(cell, w, x[:, t], r * h if reset == "hidden" else h, 2)
        term = read(r * m, matrix) if reset == "before" else read(m, matrix)
        term = r * term if reset == "after" else term
        if reset == "after" and form["sharing"] == "integration":
            # the reset acts on what holds h; the first-order part of the table's term does not
            part = x[:, t] @ w["weight_x"].view(3, N, -1)[2].T * (w["gain_x"].view(3, N)[2] - 1)
            term = term + (1 - r) * part
        new = tanh(first[2] + term)
        h = (1 - z) * new + z * h
        assert_close(y[:, t], h, f"h at step {t}")


@pytest.mark.parametrize("name", CELL_NAMES)
def test_every_option_changes_the_output(name: str) -> None:
    factor = 12
    options: list[dict[str, Any]] = [{"sharing": s, "factor": factor} for s in SHARINGS[:5]]
    options += [{"sharing": "direct"}, {"sharing": "integration"}, {"sharing": "integration", "gains": (2.0, 1.0, 1.0)}]
    options += [{"factor": 6}, {"factor": factor, "product": "add"}, {"factor": factor, "factor_bias": 0.5}]
    options += [{"sharing": "per_gate", "factor": factor, "weight_norm": True}]
    if name == "mgru":
        options += [{"reset": place} for place in ("after", "before", "hidden")]
    found = [outputs(make(name, **chosen)).detach() for chosen in options]
    for (a, first), (b, second) in product(enumerate(found), repeat=2):
        assert a >= b or float((first - second).abs().max()) > 1e-4, f"{options[a]} and {options[b]}"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"name": "mlstm", "sharing": "direct", "factor": 3}, "leave it out"),
        ({"name": "mlstm", "sharing": "integration", "product": "add"}, "use that cell"),
        ({"name": "mlstm", "sharing": "integration", "factor_bias": 1.0}, "set gains"),
        ({"name": "mlstm", "product": "add", "factor_bias": 1.0}, "drop factor_bias"),
        ({"name": "mlstm", "gains": (1.0, 1.0, 1.0)}, "gains belong"),
        ({"name": "mgru", "sharing": "direct", "reset": "before"}, "no readout"),
        ({"name": "mrnn", "sharing": "per_gate"}, "use shared"),
        ({"name": "mlstm", "sharing": "block_readout", "factor": 7}, "gates divide"),
        ({"name": "mgru", "reset": "before", "factor": 3}, "must be the width 4"),
    ],
    ids=str,
)
def test_refusals(config: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        CELLS[config["name"]](IN, N, CELLS.parse(config))


def test_mrnn_forms() -> None:
    forms: list[dict[str, Any]] = [{}, {"product": "add"}, {"weight_norm": True}]
    forms += [{"sharing": "direct"}, {"sharing": "integration"}]
    found = [outputs(make("mrnn", **form)).detach() for form in forms]
    assert all(float((a - b).abs().max()) > 1e-4 for k, a in enumerate(found) for b in found[:k])
