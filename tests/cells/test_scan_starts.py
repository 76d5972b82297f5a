"""How scan cells begin, what their place in a stack changes, and that every option does something."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from cells.scans import cell, draw
from unrolled.cells import CELLS
from unrolled.cells.parts.shift import shifted
from unrolled.cells.parts.state import as_complex, as_real
from unrolled.core.parameters import rules_of
from unrolled.kernels.diag_scan import diag_scan
from unrolled.model import LanguageModel, ModelConfig

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("mingru", {"form": "log"}), ("mingru", {"expansion": 2.0}), ("minlstm", {"form": "log"}),
    ("minlstm", {"expansion": 2.0}), ("sru", {"version": 1}), ("sru", {"highway_bias": -3.0}), ("lru", {"states": 2.0}),
    ("lru", {"r_min": 0.8}), ("lru", {"r_max": 0.3}), ("lru", {"max_phase": 0.3}), ("hgrn", {"form": "real"}),
    ("rg_lru", {"heads": 2}), ("rg_lru", {"decay": "paper"}), ("rg_lru", {"expand": 2.0}),
    ("rwkv4_channel", {"factor": 2.0}), ("aaren", {"heads": 2}),
    ("gateloop", {"heads": 2}), ("gateloop", {"gate": "head"}), ("mamba", {"expand": 1.0}), ("mamba", {"states": 3}),
    ("mamba", {"kernel": 2}), ("mamba", {"norms": True}),
    ("longhorn", {"form": "exact"}), ("longhorn", {"expand": 1}), ("longhorn", {"states": 3}),
    ("longhorn", {"kernel": 2}),
]  # fmt: skip


def begun(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return CELLS[name](8, 8, CELLS.parse({"name": name, **options})).double()


def outputs(made: Any) -> Tensor:
    """At the weights of the start; matrices that start as zeros are drawn."""
    with torch.no_grad():
        for k, parameter in enumerate(made.parameters()):
            if parameter.dim() == 2 and not parameter.any():
                parameter.copy_(draw(*parameter.shape, seed=k))
        return made(draw(2, 7, 8, seed=5))[0]


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_an_option_changes_the_result(name: str, options: dict[str, Any]) -> None:
    assert not torch.allclose(outputs(begun(name, **options)), outputs(begun(name)))


def test_every_option_is_turned_here() -> None:
    """heads of longhorn belong to its exact form, whose equations are tested; perspectives have tests of their own."""
    turned = {(name, option) for name, options in OPTIONS for option in options} | {("longhorn", "heads")}
    turned |= {("rwkv4", "perspectives"), ("rwkv4_channel", "perspectives")}
    for name in {name for name, _ in turned}:
        assert {(name, option) for option in CELLS[name].Config.model_fields if option != "name"} <= turned


def test_the_rings_of_the_lru() -> None:
    made = CELLS["lru"](512, 8, CELLS.parse({"name": "lru", "r_min": 0.4, "r_max": 0.9, "max_phase": 0.5})).double()
    modulus, phase = torch.exp(-made.nu.exp()).detach(), made.theta.exp().detach()
    assert 0.4 < float(modulus.min()) < 0.5
    assert 0.85 < float(modulus.max()) < 0.9
    assert abs(float(modulus.square().mean()) - (0.4**2 + 0.9**2) / 2) < 0.04, "uniform by the square"
    assert 0 < float(phase.min()) < float(phase.max()) < 0.5
    torch.testing.assert_close(made.log_gamma.exp(), (1 - modulus**2).sqrt(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("decay", "low", "high"), [("code", 0.43, 0.993), ("paper", 0.9, 0.9991)])
def test_the_decay_of_an_open_rg_lru(decay: str, low: float, high: float) -> None:
    made = CELLS["rg_lru"](8, 512, CELLS.parse({"name": "rg_lru", "decay": decay})).double()
    a = torch.exp(-8 * softplus(made.decay)).detach()
    assert low <= float(a.min()) < low + 0.1
    assert high - 0.02 < float(a.max()) <= high


def test_the_slope_of_the_rg_lrus_root_is_bounded() -> None:
    made = begun("rg_lru").float()
    with torch.no_grad():
        made.bias_a.fill_(-200)  # the gate is shut: 1 - a^2 is zero
    y, _ = made(draw(1, 5, 8).float())
    grads = torch.autograd.grad(y.sum(), list(made.parameters()))
    assert all(bool(grad.isfinite().all()) for grad in grads)


def test_the_steps_of_mamba() -> None:
    made = CELLS["mamba"](8, 256, CELLS.parse("mamba")).double()
    delta = softplus(made.bias_delta).detach()
    assert 1e-3 <= float(delta.min()) < 1.5e-3
    assert 0.08 < float(delta.max()) <= 0.1
    assert abs(float(delta.log().mean()) - (math.log(1e-3) + math.log(0.1)) / 2) < 0.2
    torch.testing.assert_close(made.log_a.exp(), torch.arange(1.0, 17).double().expand(512, 16))
    assert torch.equal(made.d, torch.ones(512, dtype=torch.float64))


def model(cells: str, **options: Any) -> Any:
    """A model whose parts and parameters are read by name: Any in place of ``Module``."""
    torch.manual_seed(0)
    config = {"width": 8, "cell": cells, "stack": {"kind": "residual"}, **options}
    return LanguageModel(ModelConfig.parse(config), 11)


def test_depth_changes_the_start() -> None:
    blocks = "rwkv4, rwkv4_channel, rwkv4, rwkv4_channel, rwkv4, rwkv4_channel"
    first, _, _, _, last, channel = model(blocks).stack.cells()
    share = torch.arange(8) / 8
    torch.testing.assert_close(first.mix_k.detach(), share)
    torch.testing.assert_close(last.mix_k.detach(), share ** (1 / 3))
    torch.testing.assert_close(last.mix_v.detach(), share ** (1 / 3) + 0.3)
    torch.testing.assert_close(last.mix_r.detach(), share ** (1 / 6))
    torch.testing.assert_close(channel.mix_k.detach(), share ** (1 / 3))
    torch.testing.assert_close(first.decay.detach(), -5 + 8 * (torch.arange(8) / 7) ** 0.7)
    torch.testing.assert_close(last.decay.detach(), -5 + 8 * (torch.arange(8) / 7) ** 2)
    for deep in (model("mamba*9"), model("rg_lru*9")):
        found = torch.stack([layer.out.detach() for layer in deep.stack.cells()]).std()
        alone = model(deep.stack.cells()[0].name).stack.cells()[0].out.detach().std()
        assert 0.8 < float(3 * found / alone) < 1.25, "a third of the deviation"


def test_the_layers_of_an_hgrn_share_their_bounds() -> None:
    lm = model("hgrn*4")
    cells = lm.stack.cells()
    assert len({id(layer.bounds) for layer in cells}) == 1
    for i, layer in enumerate(cells):
        torch.testing.assert_close(layer.bounds.of(layer.place.index), torch.full((8,), i / 4))
    with torch.no_grad():
        cells[0].bounds.table.normal_()
    bounds = torch.stack([layer.bounds.of(layer.place.index) for layer in cells])
    assert not bounds[0].any()
    assert bool((bounds.diff(dim=0) > 0).all())
    assert float(bounds.detach().max()) < 1
    tokens = torch.arange(22).view(2, 11) % 11
    lm.loss(tokens, tokens)[0].backward()
    assert cells[0].bounds.table.grad is not None
    assert bool(cells[0].bounds.table.grad.any())
    formula = sum(type(layer).num_params(layer.config, 8, 8) for layer in cells)
    assert sum(p.numel() for p in lm.stack.layers.parameters()) == formula


def test_rules_reach_the_optimiser_and_published_starts_are_kept() -> None:
    cells = "mamba, rwkv4, lru, rg_lru, sru, hgrn, aaren"
    lm, other = model(cells, init_std=0.02), model(cells)
    rules = rules_of(lm)
    mamba, rwkv, lru, rg_lru, *_ = lm.stack.cells()
    assert not rules[mamba.log_a].decay
    assert not rules[mamba.d].decay
    assert rules[rwkv.decay].rate == 2
    assert rules[rwkv.bonus].rate == 3
    assert rules[lru.nu].rate == 0.25
    assert not rules[rg_lru.decay].decay
    kept = [name for name, p in lm.stack.named_parameters() if p in rules and not rules[p].drawn]
    assert len(kept) > 20
    for name in kept:
        assert torch.equal(lm.stack.get_parameter(name), other.stack.get_parameter(name)), name
    assert not rwkv.out.any()
    assert float(mamba.weight.detach().std()) < 0.03, "what has no start of its own is drawn"


def test_a_shift_is_the_step_before() -> None:
    x, before = draw(2, 4, 3), draw(2, 3, seed=1)
    y = shifted(x, before)
    assert torch.equal(y[:, 0], before)
    assert torch.equal(y[:, 1:], x[:, :-1])
    reset = torch.tensor([[1, 0, 0, 0], [0, 0, 1, 0]], dtype=torch.bool)
    cut = shifted(x, before, reset)
    assert not cut[reset].any()
    assert torch.equal(cut[~reset], y[~reset])


def test_complex_numbers_are_pairs() -> None:
    x = draw(2, 6)
    assert torch.equal(as_real(as_complex(x)), x)
    assert as_complex(x)[1, 2] == torch.complex(x[1, 2], x[1, 5])


def test_a_diagonal_state_space_is_the_recurrence_of_its_filter() -> None:
    """An impulse into a complex scan gives the powers of its factors: a convolution and a scan are one thing."""
    a = torch.polar(0.5 + 0.4 * draw(3).sigmoid(), draw(3, seed=1))
    impulse = torch.zeros(1, 12, 3, dtype=a.dtype)
    impulse[:, 0] = 1
    h, _ = diag_scan(a, impulse)
    torch.testing.assert_close(h[0], a ** torch.arange(12).unsqueeze(1), rtol=1e-12, atol=1e-12)


def test_a_cell_by_itself_is_a_stack_of_one() -> None:
    assert cell("hgrn").bounds.of(0).tolist() == [0.0] * 4
