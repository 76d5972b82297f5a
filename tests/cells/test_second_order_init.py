"""How the second-order cells begin: variances of m in all forms, readouts, gains, and counts of parameters."""

import pytest
import torch
from torch import Tensor

from cells.second_order import CELL_NAMES, SHARINGS, make
from conformance.tolerance import assert_close
from unrolled.cells import CELLS

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
