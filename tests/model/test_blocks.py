"""Patterns of layers, MLPs of every kind on tensors and in packed programs, widths that cells accept."""

from typing import Any

import pytest
import torch
from torch.nn.functional import gelu, silu

from unrolled.cells import CELLS
from unrolled.cells.feedforward.mlp import MLPS
from unrolled.core.errors import UsageError
from unrolled.kernels.cpu import why_no_library
from unrolled.model import LanguageModel, ModelConfig, count_params, fit_width
from unrolled.predict import NeuralPredictor, PackedPredictor
from unrolled.predict.packed_program import why_not_packed


def config(**values: Any) -> ModelConfig:
    return ModelConfig.parse({"width": 8, **values})


def test_a_pattern_is_the_list_of_cells_in_short() -> None:
    short = config(cell="qrnn, lstm*2 , mlp")
    assert short == config(layers=4, cell=["qrnn", "lstm", "lstm", "mlp"])
    assert [cell.name for cell in config(cell="qrnn,mlp", layers=6).layer_cells()] == ["qrnn", "mlp"] * 3
    assert config(cell="lstm*3").layers == 3
    assert config(cell="lstm", layers=2).cell == CELLS.parse("lstm")


def test_a_pattern_gives_its_cells_options() -> None:
    cell = {"pattern": "qrnn*2, mlp", "mlp": {"kind": "geglu", "factor": 1.5}}
    long = config(layers=3, cell=["qrnn", "qrnn", {"name": "mlp", "kind": "geglu", "factor": 1.5}])
    assert config(cell=cell) == long
    assert config(cell=cell, layers=6).layer_cells() == long.layer_cells() * 2
    assert config(cell={"pattern": "lstm", "lstm": {"forget_bias": 2.0}}).layer_cells()[0].forget_bias == 2.0


def test_a_layer_that_is_not_normed_reads_what_comes_in() -> None:
    torch.manual_seed(0)
    model = LanguageModel(config(cell="conv, mingru", stack={"kind": "residual", "norm": "rms"}), 9).double()
    assert not [name for name, _ in model.named_parameters() if name.startswith("stack.norms.0")]
    tokens = torch.arange(8).view(1, 8)
    first, second = model.stack.cells()
    x = model.embedding(tokens)
    x = x + first(x)[0]
    x = x + second(model.stack.norms[1](x))[0]  # type: ignore[index]
    torch.testing.assert_close(model(tokens).raw, model.stack.final_norm(x))  # type: ignore[misc]


def test_layer_norms_may_have_no_biases() -> None:
    torch.manual_seed(0)
    stack = {"kind": "residual", "norm": "layer", "input_norm": "layer", "mlp": 2.0}
    with_biases, without = (
        LanguageModel(config(layers=2, cell="mingru", stack={**stack, "norm_bias": bias}), 9).double()
        for bias in (True, False)
    )
    lacking = with_biases.load_state_dict(without.state_dict(), strict=False).missing_keys
    assert len(lacking) == 6
    assert all("norm" in name and name.endswith("bias") for name in lacking)
    tokens = torch.arange(8).view(1, 8)
    torch.testing.assert_close(with_biases(tokens).raw, without(tokens).raw)
    with torch.no_grad():
        with_biases.get_parameter(lacking[0]).add_(torch.arange(8))
    assert not torch.allclose(with_biases(tokens).raw, without(tokens).raw)


@pytest.mark.parametrize("kind", ["gelu", "swiglu"])
def test_mlps_of_blocks_may_have_no_biases(kind: str) -> None:
    torch.manual_seed(0)
    stack = {"kind": "residual", "mlp": 2.0, "mlp_kind": kind}
    with_biases, without = (
        LanguageModel(config(layers=2, cell="mingru", stack={**stack, "mlp_bias": bias}), 9).double()
        for bias in (True, False)
    )
    assert not [name for name, _ in without.named_parameters() if "mlps" in name and name.endswith("bias")]
    loaded = with_biases.load_state_dict(without.state_dict(), strict=False)
    assert all(".mlps." in f".{name}." for name in loaded.missing_keys)
    tokens = torch.arange(8).view(1, 8)
    assert not torch.allclose(with_biases(tokens).raw, without(tokens).raw)
    with torch.no_grad():
        for name in loaded.missing_keys:
            with_biases.get_parameter(name).zero_()
    torch.testing.assert_close(with_biases(tokens).raw, without(tokens).raw)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"cell": {"pattern": "lstm, mlp", "mpl": {}}},
            "options of 'mpl', which its pattern does not name; it names",
        ),
        ({"cell": {"pattern": "lstm, mlp", "mlp": 3}}, "model.cell.mlp are the options of mlp"),
        ({"cell": {"pattern": "lstm, mlp", "mlp": {"width": 3}}}, "unknown config key"),
        ({"cell": "lstn*2, mlp"}, "unknown cell 'lstn'; did you mean 'lstm'"),
        ({"cell": "lstm*2, mlp", "layers": 4}, "model.cell has 3 entries for 4 layers"),
        ({"cell": "lstm*0"}, "no pattern of layers"),
        ({"cell": "lstm*-1"}, "no pattern of layers"),
        ({"cell": "lstm,,mlp"}, "no pattern of layers"),
        ({"cell": "lstm*99999"}, "no pattern of layers"),
        ({"cell": "lstm*2000"}, "less than or equal to 1024"),
    ],
)
def test_what_is_no_pattern_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words.replace("*", r"\*")):
        config(**values)


@pytest.mark.parametrize("kind", MLPS)
def test_mlps_compute_what_their_names_say(kind: str) -> None:
    torch.manual_seed(0)
    cell = CELLS["mlp"](5, 4, CELLS.parse({"name": "mlp", "kind": kind, "factor": 3.0})).double()
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    up = x @ cell.up.weight.t() + cell.up.bias
    assert up.shape[-1] == 12
    if cell.gate is None:
        hidden = {"gelu": gelu(up), "relu": up.clamp_min(0), "relu2": up.clamp_min(0) ** 2}[kind]
    else:
        gate = x @ cell.gate.weight.t() + cell.gate.bias
        gates = {"swiglu": silu(gate), "geglu": gelu(gate), "geglu_tanh": gelu(gate, approximate="tanh")}
        hidden = gates[kind] * up
    torch.testing.assert_close(cell(x)[0], hidden @ cell.down.weight.t() + cell.down.bias)


@pytest.mark.parametrize("kind", MLPS)
def test_packed_weights_decode_residual_blocks(kind: str) -> None:
    torch.manual_seed(0)
    stack = {"kind": "residual", "mlp": 2.0, "mlp_kind": kind, "norm": "rms"}
    model = LanguageModel(config(layers=2, stack=stack, embedding={"size": 5}), 11).double()
    reason = why_not_packed(model)
    if kind in ("gelu", "geglu"):
        assert reason is not None
        assert "gelu" in reason
        return
    if why_no_library() is not None:
        pytest.skip("there is no library")
    assert reason is None
    packed, plain = PackedPredictor(model, 0), NeuralPredictor(model, 0)
    one, other = packed.begin(3), plain.begin(3)
    for token in (1, 7, 2):
        torch.testing.assert_close(packed.predict(one).log_prob, plain.predict(other).log_prob, rtol=1e-9, atol=1e-12)
        ids = torch.tensor([token, 10 - token, 0])
        one, other = packed.observe(one, ids), plain.observe(other, ids)


def test_the_kind_of_mlp_acts_and_counts() -> None:
    models = {}
    for kind in MLPS:
        torch.manual_seed(0)
        models[kind] = LanguageModel(config(stack={"kind": "residual", "mlp": 2.0, "mlp_kind": kind}), 7)
    tokens = torch.arange(6).view(2, 3)
    outputs = [model(tokens).raw for model in models.values()]
    assert all(not torch.equal(a, b) for i, a in enumerate(outputs) for b in outputs[:i])
    gate = 2 * 8 * 8 + 2 * 8  # one matrix more, and its bias
    assert models["swiglu"].num_params() - models["gelu"].num_params() == gate


@pytest.mark.parametrize("widths", [None, (8, 16)])
def test_fitting_keeps_to_the_widths_that_cells_accept(widths: tuple[int, ...] | None) -> None:
    cell = {"name": "mgru", "sharing": "block_readout"}
    made = config(cell=cell, layers=2, width=6, widths=None if widths is None else (6, 12))
    assert CELLS["mgru"].width_multiple(CELLS.parse(cell)) == 3
    fitted = fit_width(made, 50, 30_000)
    assert all(width % 3 == 0 for width in fitted.layer_widths())
    assert count_params(fitted, 50) <= 30_000
    wider = fitted.model_copy(update={"width": fitted.width + 3})
    if widths is None:
        assert count_params(wider, 50) > 30_000
    with pytest.raises(UsageError, match="the width of a mgru is a multiple of 3 here, not 7; try 6 or 9"):
        LanguageModel(config(cell=cell, width=7), 50)
