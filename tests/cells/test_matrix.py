"""Identities of the cells with matrix states, their inits, and what stays finite."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from conformance.material import resets, wave
from conformance.tolerance import assert_close
from unrolled.cells import CELLS, ParameterRule, Place
from unrolled.cells.matrix.base import MatrixCell
from unrolled.cells.matrix.linear_attention import dpfp
from unrolled.cells.parts.stabiliser import stabilise
from unrolled.model import LanguageModel, ModelConfig


def make(name: str, width: int = 8, in_width: int = 8, **options: Any) -> Any:
    torch.manual_seed(0)
    cell = CELLS[name](in_width, width, CELLS[name].Config(**options)).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return cell


X = wave(2, 11, 8, phase=0.3)


def by_loop(keep: Tensor, write: Tensor, q: Tensor) -> Tensor:
    """o(t) = S(t)^T q(t) with S(t) = keep(t) S(t-1) + write(t); all (batch, time, heads, K, V) but q."""
    s, outputs = torch.zeros_like(write[:, 0]), []
    for t in range(write.shape[1]):
        s = keep[:, t] * s + write[:, t]
        outputs.append(torch.einsum("bhkv,bhk->bhv", s, q[:, t]))
    return torch.stack(outputs, 1)


def test_retnet_is_a_rotation_by_the_place_in_the_text() -> None:
    """The published form turns q and k by the token's position, and weighs a pair by gamma^(distance)."""
    cell = make("retnet", heads=2, value_factor=1)
    q, k, v, g = cell.linear("weight", X).chunk(4, -1)
    angle = torch.arange(11).double().view(-1, 1, 1) * 10000.0 ** -torch.linspace(0, 1, 2).double()

    def turned(x: Tensor) -> Tensor:
        z = torch.view_as_complex(x.unflatten(-1, (2, 2, 2)).contiguous()) * torch.polar(torch.ones_like(angle), angle)
        return torch.view_as_real(z).flatten(-2)

    gamma = 1 - 2.0 ** (-5 - torch.arange(2).double())
    gap = torch.arange(11).view(-1, 1) - torch.arange(11)
    weight = (gamma.view(2, 1, 1) ** gap.clamp_min(0)) * (gap >= 0)
    scores = torch.einsum("bihc,bjhc->bhij", turned(q), turned(k)) * weight * 4**-0.5
    o = torch.einsum("bhij,bjhc->bihc", scores, v.unflatten(-1, (2, 4)))
    expected = cell.linear("out", cell.norm(o).flatten(2) * silu(g))
    assert_close(cell(X)[0], expected, "retention by positions")


def test_gla_with_one_decay_for_all_keys_is_a_decay_by_head() -> None:
    cell = make("gla", heads=2)
    with torch.no_grad():
        cell.decay_out.zero_()
        cell.decay_bias.fill_(0.7)
    q, k, v, g = cell.linear("weight", X).split((4, 4, 8, 8), -1)
    keep = torch.sigmoid(torch.tensor(0.7, dtype=torch.float64)) ** (1 / 16)
    write = torch.einsum("bthk,bthv->bthkv", k.unflatten(-1, (2, 2)), v.unflatten(-1, (2, 4)))
    o = by_loop(keep.expand(write.shape), write, q.unflatten(-1, (2, 2))) * 2**-0.5
    assert_close(cell(X)[0], cell.linear("out", cell.norm(o).flatten(2) * silu(g)), "gla")


def test_gated_deltanet_without_decay_is_deltanet() -> None:
    gated = make("gated_deltanet", heads=1, kernel=0, gate=False)
    with torch.no_grad():
        gated.log_rate.fill_(-80)
    plain = make("deltanet", heads=1, kernel=0)
    # the same vectors: the first of the gated cell's values, as many as there are keys
    plain.head_sizes = gated.head_sizes
    plain.weight = torch.nn.Parameter(gated.weight[:-1])
    plain.norm, plain.out = gated.norm, gated.out
    plain.blocks = lambda config, width: gated.blocks(config, width)[:-1]
    state = plain.State(gated.initial_state(2, dtype=X.dtype).s)
    assert_close(plain(X, state)[0], gated(X)[0], "without decay")


def test_mamba2_is_a_decayed_sum() -> None:
    cell = make("mamba2", states=3, head=4, groups=2)
    z, xbc, pre = cell.linear("weight", X).split(cell._blocks(cell.config, 8), -1)
    v, k, q = silu(_convolved(cell, xbc)).split((16, 6, 6), -1)
    step = torch.nn.functional.softplus(pre + cell.step_bias)
    k, q = (part.unflatten(-1, (2, 3)).repeat_interleave(2, 2) for part in (k, q))
    v = v.unflatten(-1, (4, 4))
    write = torch.einsum("bth,bthk,bthv->bthkv", step, k, v)
    keep = (-cell.log_rate.exp() * step).exp()[..., None, None].expand(write.shape)
    y = (by_loop(keep, write, q) + cell.skip[:, None] * v).flatten(2) * silu(z)
    normed = torch.nn.functional.rms_norm(y.unflatten(-1, (2, 8)), (8,), eps=1e-5).flatten(2) * cell.norm.weight
    assert_close(cell(X)[0], cell.linear("out", normed), "mamba2")


def _convolved(cell: Any, x: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(x, (0, 0, 3, 0)).transpose(1, 2)
    return torch.nn.functional.conv1d(padded, cell.conv.weight[:, None], cell.conv.bias, groups=x.shape[2]).transpose(
        1, 2
    )


def test_slots_are_softmax_attention_over_what_they_hold() -> None:
    cell = make("gsa", heads=1, slots=3)
    q, k, v, pre = cell.linear("weight", X).split((8, 8, 8, 3), -1)
    q, k, v = silu(q), silu(k), silu(v)
    keep = torch.sigmoid(pre) ** (1 / 8)
    keys = values = torch.zeros(2, 3, 8, dtype=X.dtype)
    outputs = []
    for t in range(11):
        a = keep[:, t, :, None]
        keys, values = a * keys + (1 - a) * k[:, t, None], a * values + (1 - a) * v[:, t, None]
        weight = torch.softmax(8**-0.5 * torch.einsum("bmk,bk->bm", keys, q[:, t]), -1)
        outputs.append(torch.einsum("bm,bmv->bv", weight, values))
    o = silu(torch.stack(outputs, 1))
    normed = torch.nn.functional.rms_norm(o, (8,), cell.norm.weight, 1e-5)
    assert_close(cell(X)[0], cell.linear("out", normed), "gsa")


def test_linear_attention_is_a_weighted_mean_of_what_was_seen() -> None:
    cell = make("linear_attention", heads=2)
    q, k, v = (part.unflatten(-1, (2, 4)) for part in cell.linear("weight", X).chunk(3, -1))
    q, k = (torch.nn.functional.elu(part) + 1 for part in (q, k))
    weight = torch.einsum("bihc,bjhc->bhij", q, k).tril()
    o = torch.einsum("bhij,bjhc->bihc", weight / (weight.sum(-1, keepdim=True) + 1e-6), v).flatten(2)
    assert_close(cell(X)[0], cell.linear("out", o), "linear attention")


def test_dpfp() -> None:
    x = torch.tensor([1.0, -2.0, 3.0])
    r = [1.0, 0.0, 3.0, 0.0, 2.0, 0.0]
    expected = [r[i] * r[i - j] for j in (1, 2) for i in range(6)]
    assert dpfp(x, 2).tolist() == expected


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_the_matrix_lstm_is_its_unstabilised_form(scale: float) -> None:
    """C = f C + e^i k v', n = f n + e^i k, C' q / max(|n' q|, 1), where no exponential overflows in float64."""
    cell = make("matrix_lstm", heads=2, form="large")
    with torch.no_grad():
        cell.gate_bias.copy_(torch.tensor([0.3, -0.5, 1.0, 2.0]) * scale)
    q, k, v, pre, (o,) = cell._vectors(X, cell.initial_state(2, dtype=X.dtype), None)
    i, f = pre.chunk(2, -1)
    q, k, v = q.unflatten(-1, (2, 2)), k.unflatten(-1, (2, 2)) * 2**-0.5, v.unflatten(-1, (2, 4))
    write = torch.einsum("bth,bthk,bthv->bthkv", i.exp(), k, v)
    keep = torch.sigmoid(f)[..., None, None]
    read = by_loop(keep.expand(write.shape), write, q)
    total = by_loop(keep.expand(*k.shape, 1), (i.exp()[..., None] * k)[..., None], q).squeeze(-1)
    read = read / total.abs().clamp_min(1).unsqueeze(-1)
    expected = cell.linear("out", cell.norm(read).flatten(2) * torch.sigmoid(o))
    # the published ε stands in units of the stabiliser
    torch.testing.assert_close(cell(X)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reset", [None, resets(2, 9)])
def test_the_stabiliser_in_closed_form(reset: Tensor | None) -> None:
    log_f, log_i = -wave(2, 9, 3).square(), 5 * wave(2, 9, 3, phase=1.0)
    start = wave(2, 3, phase=2.0)
    found = stabilise(log_f, log_i, start, reset)
    m = start
    for t in range(9):
        if reset is not None:
            m = torch.where(reset[:, t, None], 0.0, m)
        new = torch.maximum(log_f[:, t] + m, log_i[:, t])
        torch.testing.assert_close(found.top[:, t], new)
        torch.testing.assert_close(found.log_decay[:, t], log_f[:, t] + m - new)
        torch.testing.assert_close(found.log_write[:, t], log_i[:, t] - new)
        m = new


def test_rwkv7_hands_the_lowest_values_upwards() -> None:
    config = {"width": 8, "layers": 3, "cell": {"name": "rwkv7", "head": 4, "ranks": [2, 2, 2, 2]}}
    torch.manual_seed(0)
    model = LanguageModel(ModelConfig.parse(config), 9).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    tokens = torch.arange(6).view(1, 6)
    before = model(tokens).raw
    lowest, second, _ = model.stack.cells()
    with torch.no_grad():
        second.get_parameter("v0").add_(1.0)
    assert not torch.allclose(model(tokens).raw, before), "the second layer mixes its values with the lowest's"
    changed = model(tokens).raw
    with torch.no_grad():
        lowest.get_parameter("v0").add_(1.0)
    assert torch.equal(model(tokens).raw, changed), "the lowest has nobody below"


def test_starts_by_depth() -> None:
    cell = CELLS["rwkv7"](64, 64, CELLS["rwkv7"].Config())
    cell.take_place(Place(0, 4, 0, 4))
    low = cell.mu_w.clone()
    cell.take_place(Place(3, 4, 3, 4))
    assert (cell.mu_w < low)[1:].all(), "higher layers mix less of the token before"
    model = LanguageModel(ModelConfig.parse({"width": 8, "layers": 4, "cell": {"name": "hgrn2", "heads": 2}}), 5)
    layers: list[Any] = list(model.stack.layers)
    bounds = [float(layer.bounds.of(layer.place.index)[0].detach()) for layer in layers]
    assert bounds == pytest.approx([0, 0.25, 0.5, 0.75])


@pytest.mark.parametrize("name", [name for name in CELLS if issubclass(CELLS[name], MatrixCell)])
def test_extreme_inputs_stay_finite(name: str) -> None:
    multiple = CELLS[name].width_multiple(CELLS[name].Config())
    torch.manual_seed(0)
    cell = CELLS[name](multiple, multiple, CELLS[name].Config())
    for scale in (0.0, 40.0):
        x = (scale * wave(2, 40, multiple).float()).requires_grad_()
        y, state = cell(x)
        (grad,) = torch.autograd.grad(y.square().mean(), x)
        assert all(part.isfinite().all() for part in (y, grad, *state)), f"{name} at {scale}"


@pytest.mark.parametrize(("heads", "multiple"), [(1, 4), (2, 8), (3, 4), (6, 8)])
def test_gated_deltanet_takes_every_width_whose_keys_divide(heads: int, multiple: int) -> None:
    config = CELLS.parse({"name": "gated_deltanet", "heads": heads})
    cls = CELLS["gated_deltanet"]
    assert cls.width_multiple(config) == multiple
    assert cls.head_sizes(config, multiple) == (heads, 3 * multiple // 4 // heads, 3 * multiple // 2 // heads)
    assert all(3 * width % (4 * heads) for width in range(1, multiple))
    if heads == 6:  # the published model
        assert cls.head_sizes(config, 2048) == (6, 256, 512)


def test_rwkv7_decays_its_large_matrices_alone() -> None:
    cell = CELLS["rwkv7"](8, 8, CELLS.parse({"name": "rwkv7", "head": 4}))
    decayed = {name for name, _ in cell.named_parameters() if cell.parameter_rules.get(name, ParameterRule()).decay}
    assert decayed == {"weight_r", "weight_k", "weight_v", "out"}
