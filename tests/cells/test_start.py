"""Initial weights have the stated distribution; parameter formulas give the published sizes."""

import math
from typing import Any

import pytest
import torch

from unrolled.cells import CELLS
from unrolled.cells.gated.mogrifier import Mogrifier, MogrifierConfig
from unrolled.cells.multiplicative.mlstm import MLSTM, MLSTMConfig

# Variance of a standard normal cut at two standard deviations.
CUT = 1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2))


def make(in_width: int, width: int, **config: Any) -> Any:
    torch.manual_seed(8)
    parsed = CELLS.parse(config)
    return CELLS[parsed.name](in_width, width, parsed)


def variance(v: Any) -> float:
    return float(v.detach().double().square().mean())


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "mrnn", "mlstm"])
def test_uniform(name: str) -> None:
    cell = make(50, 100, name=name)
    for key, parameter in cell.named_parameters():
        if parameter.dim() == 2:
            assert float(parameter.detach().abs().max()) <= 0.1, key
            assert variance(parameter) == pytest.approx(0.01 / 3, rel=0.06), key


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "mrnn", "mlstm"])
def test_orthogonal_blocks(name: str) -> None:
    cell = make(50, 40, name=name, init="orthogonal")
    eye = torch.eye(40)
    for key, parameter in cell.named_parameters():
        if parameter.dim() == 2 and parameter.shape[1] == 40:
            for block in parameter.detach().split(40):
                assert torch.allclose(block @ block.T, eye, atol=1e-5), key
        elif parameter.dim() == 2:
            assert variance(parameter) == pytest.approx(1 / 50 / 3, rel=0.1), key


def test_orthogonal_input_matrices() -> None:
    cell = make(30, 40, name="lstm", init="orthogonal_all")
    for block in cell.weight_ih.detach().split(40):
        assert torch.allclose(block.T @ block, torch.eye(30), atol=1e-5)
    for block in cell.weight_hh.detach().split(40):
        assert torch.allclose(block.T @ block, torch.eye(40), atol=1e-5)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_truncated_normal(name: str) -> None:
    cell = make(50, 100, name=name, init="truncated_normal")
    for key, fan_in in (("weight_ih", 50), ("weight_hh", 100)):
        parameter = cell.get_parameter(key)
        assert float(parameter.detach().abs().max()) <= 2 / math.sqrt(fan_in)
        assert variance(parameter) == pytest.approx(CUT / fan_in, rel=0.05)
    if name == "lstm":
        i, f, g, o = cell.bias.detach().split(100)
        assert variance(torch.cat([i, g, o])) == pytest.approx(CUT / 100, rel=0.25)
        assert float(f.mean()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("bias", ["one", "two"])
def test_uniform_biases_are_those_of_torch(bias: str) -> None:
    cell = make(50, 400, name="lstm", bias=bias, bias_init="uniform", forget_bias=0.0)
    biases = [p for key, p in cell.named_parameters() if key.startswith("bias")]
    assert len(biases) == (2 if bias == "two" else 1)
    for vector in biases:
        for block in vector.split(400):
            assert float(block.detach().abs().max()) <= 0.05
            assert variance(block) == pytest.approx(0.0025 / 3, rel=0.15)


def test_forget_bias() -> None:
    for coupled in (False, True):
        bias = make(5, 4, name="lstm", forget_bias=3.0, coupled=coupled).bias.detach()
        expected = torch.zeros_like(bias)
        expected[-12:-8] = 3
        assert torch.equal(bias, expected)
    cell = MLSTM(5, 4, MLSTMConfig(forget_bias=3.0, factor_bias=0.5))
    assert torch.equal(cell.bias, torch.tensor([0.0, 3.0, 0.0, 0.0]).repeat_interleave(4))
    assert torch.equal(cell.bias_mx, torch.full((4,), 0.5))


def test_rounds_of_the_mogrifier() -> None:
    torch.manual_seed(8)
    dense = Mogrifier(80, 120, MogrifierConfig(rounds=2))
    assert variance(dense.get_parameter("round1")) == pytest.approx(CUT / 120, rel=0.06)
    assert variance(dense.get_parameter("round2")) == pytest.approx(CUT / 80, rel=0.06)
    assert not dense.get_parameter("round1_bias").any()
    low = Mogrifier(80, 120, MogrifierConfig(rounds=1, rank=60))
    std = math.sqrt(math.sqrt(1 / 120 / 60))
    for part in ("round1_in", "round1_out"):
        assert variance(low.get_parameter(part)) == pytest.approx(CUT * std**2, rel=0.06)
    # truncation makes the product's variance about 0.6 of the dense matrix's
    product = low.get_parameter("round1_out") @ low.get_parameter("round1_in")
    assert variance(product) == pytest.approx(0.6 / 120, rel=0.08)


def test_published_sizes() -> None:
    n, i = 2800, 400
    assert MLSTM.num_params(MLSTMConfig(), i, n) == 5 * n * i + 5 * n * n + 4 * n
    normed = MLSTM.num_params(MLSTMConfig(weight_norm=True), i, n)
    assert normed == 5 * n * i + 5 * n * n + 4 * n + 10 * n
    # the whole system: 45.50 million with 205 symbols, 44.93 with 27 (embedding, cell, output with bias)
    for vocabulary, millions in ((205, 45.50), (27, 44.93)):
        total = vocabulary * i + normed + vocabulary * (n + 1)
        assert round(total / 1e6, 2) == millions
    # byte model with 4096 units and embedding 64: 86.3 million
    total = 256 * 64 + MLSTM.num_params(MLSTMConfig(weight_norm=True), 64, 4096) + 256 * 4097
    assert round(total / 1e6, 1) == 86.3


@pytest.mark.parametrize(
    ("config", "formula"),
    [
        ({"name": "rnn"}, lambda n, i: n * i + n * n + n),
        ({"name": "lstm"}, lambda n, i: 4 * (n * i + n * n + n)),
        ({"name": "lstm", "coupled": True}, lambda n, i: 3 * (n * i + n * n + n)),
        ({"name": "gru"}, lambda n, i: 3 * (n * i + n * n + 2 * n)),
        ({"name": "gru", "bias": "one", "reset": "before"}, lambda n, i: 3 * (n * i + n * n + n)),
        ({"name": "mrnn", "factor": 7}, lambda n, i: 7 * i + 7 * n + n * i + 7 * n + n),
        ({"name": "mlstm", "factor": 7}, lambda n, i: 7 * (i + n) + 4 * (n * i + 7 * n + n)),
    ],
)
def test_formulas(config: dict[str, Any], formula: Any) -> None:
    cell = make(6, 10, **config)
    assert sum(p.numel() for p in cell.parameters()) == formula(10, 6)
