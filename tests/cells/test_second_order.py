"""The multiplicative cells' second-order term: how its forms contain each other, and what each option does."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn, sigmoid, tanh

from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.cells import CELLS
from unrolled.core.errors import UsageError
from unrolled.kernels.dispatch import Compute

IN, N = 5, 4
SHARINGS = ("shared", "per_gate", "shared_recurrent", "shared_input", "block_readout", "direct", "integration")
CELL_NAMES = ("mlstm", "mgru")


def make(name: str, in_width: int = IN, width: int = N, **options: Any) -> Any:
    parsed = CELLS.parse({"name": name, **options})
    torch.manual_seed(2)
    cell = CELLS[name](in_width, width, parsed).double()
    with torch.no_grad():
        for k, parameter in enumerate(cell.parameters()):
            parameter.add_(0.3 * wave(*parameter.shape, phase=k))
    return cell


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


COUNTS = {
    "shared": lambda g, i, n, f: f * (i + n) + g * n * f,
    "per_gate": lambda g, i, n, f: g * (f * (i + n) + n * f),
    "shared_recurrent": lambda g, i, n, f: g * f * i + f * n + g * n * f,
    "shared_input": lambda g, i, n, f: f * i + g * f * n + g * n * f,
    "block_readout": lambda g, i, n, f: f * (i + n) + n * f,
    "direct": lambda g, i, n, _: g * n * (i + n),
    "integration": lambda g, i, n, _: g * n * n + 3 * g * n,
}


@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize(("name", "gates"), [("mlstm", 4), ("mgru", 3)])
def test_counts(name: str, gates: int, sharing: str) -> None:
    i, n = 6, 10
    has_factor = sharing not in ("direct", "integration")
    for factor in (24, 36) if has_factor else (None,):
        cell = make(name, i, n, sharing=sharing, factor=factor)
        expected = gates * n * (i + 1) + COUNTS[sharing](gates, i, n, factor)
        assert sum(p.numel() for p in cell.parameters()) == expected
        assert CELLS[name].num_params(cell.config, i, n) == expected


@pytest.mark.parametrize("init", ["uniform", "orthogonal", "truncated_normal", "variance_scaling"])
@pytest.mark.parametrize("name", CELL_NAMES)
def test_m_has_one_variance_in_all_forms(name: str, init: str) -> None:
    i, n, factor = 60, 120, 120
    torch.manual_seed(3)
    x, h = torch.randn(400, 1, i), torch.randn(400, n)
    found, readouts = {}, {}
    for sharing in ("shared", "per_gate", "shared_recurrent", "shared_input", "block_readout"):
        cell = CELLS[name](i, n, CELLS.parse({"name": name, "sharing": sharing, "factor": factor, "init": init}))
        seen: dict[str, Tensor] = {}
        cell(x, cell.initial_state(400)._replace(h=h), tap=lambda key, value, seen=seen: seen.update({key: value}))
        m = torch.cat([value for key, value in seen.items() if key == "m" or key.startswith("m_")], -1).detach()
        assert m.shape[1] == (factor if sharing in ("shared", "block_readout") else factor * cell.layout.gates)
        found[sharing] = float(m.square().mean())
        readouts[sharing] = float(cell.get_parameter("weight_m").detach().square().sum(-1).mean())
    per_input = {"uniform": 60 / 120 / 3, "orthogonal": 1 / 3, "truncated_normal": 0.774, "variance_scaling": 1.006}
    per_state = {"uniform": 1 / 3, "orthogonal": 1.0, "truncated_normal": 0.774, "variance_scaling": 1.006}
    for sharing, value in found.items():
        assert value == pytest.approx(per_input[init] * per_state[init], rel=0.12), sharing
    if init == "orthogonal":  # rows of unit length, in each gate's own readout
        assert all(readouts[s] == pytest.approx(1.0, rel=1e-4) for s in ("shared", "per_gate", "shared_input"))


def test_each_gates_readout_is_orthogonal_on_its_own() -> None:
    for sharing in ("shared", "per_gate"):
        cell = CELLS["mlstm"](5, 12, CELLS.parse({"name": "mlstm", "sharing": sharing, "init": "orthogonal"}))
        for block in cell.get_parameter("weight_m").detach().view(4, 12, 12):
            assert_close(block @ block.T, torch.eye(12), sharing)


def test_gains_start_as_told() -> None:
    cell = CELLS["mgru"](5, 4, CELLS.parse({"name": "mgru", "sharing": "integration", "gains": (2.0, 0.5, 0.25)}))
    for name, value in (("gain_xh", 2.0), ("gain_x", 0.5), ("gain_h", 0.25)):
        assert torch.equal(cell.get_parameter(name), torch.full((12,), value))


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
