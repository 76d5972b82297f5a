"""TrellisNet against truncated recurrent networks, its levels written out, and what is carried between windows."""

from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled.cells import Noise
from unrolled.cells.conv.trellis import TrellisConfig, TrellisNet, TrellisState
from unrolled.core.errors import UsageError
from unrolled.kernels.dispatch import Compute
from unrolled.kernels.trellis import BACKENDS, trellis
from unrolled.model import LanguageModel, ModelConfig

B, T, IN, Q, STEPS = 2, 14, 3, 4, 5


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(width: int = Q, **config: Any) -> TrellisNet:
    """With weights that move the gates."""
    torch.manual_seed(0)
    cell = TrellisNet(IN, width, TrellisConfig(**config)).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return cell


def truncated(x: Tensor, layers: list[tuple[Tensor, Tensor, Tensor]], unit: str) -> Tensor:
    """An RNN or LSTM whose output at t has begun from zero STEPS steps before. layers: W_x, W_h, b of each."""
    outputs = []
    for t in range(x.shape[1]):
        h = [x.new_zeros(len(x), Q) for _ in layers]
        c = [x.new_zeros(len(x), Q) for _ in layers]
        for s in range(max(0, t - STEPS + 1), t + 1):
            entry = x[:, s]
            for k, (w_x, w_h, bias) in enumerate(layers):
                pre = entry @ w_x.t() + h[k] @ w_h.t() + bias
                if unit == "tanh":
                    h[k] = torch.tanh(pre)
                else:
                    i, o, g, f = pre.chunk(4, -1)
                    c[k] = torch.sigmoid(f) * c[k] + torch.sigmoid(i) * torch.tanh(g)
                    h[k] = torch.sigmoid(o) * torch.tanh(c[k])
                entry = h[k]
        outputs.append(h[-1])
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("upper_bias", [0.0, 0.3])
@pytest.mark.parametrize("unit", ["tanh", "lstm"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_block_sparse_trellis_is_a_truncated_network(count: int, unit: Any, upper_bias: float) -> None:
    """STEPS + L - 1 levels; of biases of upper layers that are not zero it is not."""
    gates = 4 if unit == "lstm" else 1
    layers = []
    for k in range(count):
        bias = draw(gates * Q, seed=30 + k) if k == 0 else torch.full((gates * Q,), upper_bias).double()
        layers.append((draw(gates * Q, IN if k == 0 else Q, seed=k), draw(gates * Q, Q, seed=10 + k), bias))
    config = TrellisConfig(levels=STEPS + count - 1, hidden=(count - 1) * Q, unit=unit, weight_norm=False)
    cell = TrellisNet(IN, Q, config).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        for gate in range(gates):
            for k, (w_x, w_h, bias) in enumerate(layers):
                block, own = (
                    slice(gate * Q, (gate + 1) * Q),
                    slice(gate * count * Q + k * Q, gate * count * Q + (k + 1) * Q),
                )
                cell.hidden_past[own, k * Q : (k + 1) * Q] = w_h[block]
                cell.bias[own] = bias[block]
                if k == 0:
                    cell.input_now[own] = w_x[block]
                else:
                    cell.hidden_now[own, (k - 1) * Q : k * Q] = w_x[block]
        x = draw(B, T, IN, seed=20)
        found, expected = cell(x)[0], truncated(x, layers, unit)
    if upper_bias and count > 1:
        assert float((found - expected).abs().max()) > 1e-3
    else:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def by_levels(cell: TrellisNet, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The class's equations, from zeros, one number of time after another."""
    w_x, w_h = cell.weights()
    h, c = x.new_zeros(len(x), x.shape[1], cell.units), x.new_zeros(len(x), x.shape[1], cell.units)
    for d in cell.dilations:
        new_h, new_c = [], []
        for t in range(x.shape[1]):
            old_x, old_h, old_c = (part[:, t - d] if t >= d else torch.zeros_like(part[:, 0]) for part in (x, h, c))
            seen = torch.cat([old_h, h[:, t]], -1)
            seen = seen if mask is None else seen * mask.repeat(1, 2)
            pre = torch.cat([old_x, x[:, t]], -1) @ w_x.t() + seen @ w_h.t() + cell.bias
            i, o, g, f = pre.chunk(4, -1)
            new_c.append(torch.sigmoid(f) * old_c + torch.sigmoid(i) * torch.tanh(g))
            new_h.append(torch.sigmoid(o) * torch.tanh(new_c[-1]))
        h, c = torch.stack(new_h, 1), torch.stack(new_c, 1)
    return h[..., -cell.width :]


@pytest.mark.parametrize("weight_norm", [True, False])
@pytest.mark.parametrize("dilations", [(1,), (1, 2, 4)])
def test_levels_as_they_are_written(dilations: Any, weight_norm: bool) -> None:
    """With a mask between the levels too."""
    cell, x = make(levels=5, hidden=2, dilations=dilations, weight_norm=weight_norm), draw(B, T, IN)
    torch.testing.assert_close(cell(x)[0], by_levels(cell, x), rtol=0, atol=1e-12)
    mask = (draw(B, cell.units, seed=3) > 0) * 1.5
    found = cell(x, noise=Noise(inner={"levels": mask.unsqueeze(1)}))[0]
    torch.testing.assert_close(found, by_levels(cell, x, mask), rtol=0, atol=1e-12)


def test_all_levels_share_their_weights() -> None:
    few, many = (dict(make(levels=levels).named_parameters()) for levels in (2, 9))
    assert {name: p.shape for name, p in few.items()} == {name: p.shape for name, p in many.items()}
    assert sum(p.numel() for p in many.values()) == 2 * 4 * Q * (IN + Q) + 3 * 4 * Q


def test_a_norm_makes_rows_of_the_gains_length() -> None:
    cell = make(levels=2, hidden=1)
    for weight, gain in zip(cell.weights(), (cell.input_gain, cell.hidden_gain), strict=True):
        torch.testing.assert_close(weight.norm(dim=1), gain.abs(), rtol=0, atol=1e-12)
    torch.manual_seed(0)
    started = TrellisNet(IN, Q, TrellisConfig())
    for weight, kind in zip(started.weights(), ("input", "hidden"), strict=True):
        torch.testing.assert_close(weight, started._both(kind), rtol=1e-5, atol=1e-8)


def test_carried_levels_are_the_window() -> None:
    cell, x = make(levels=6, dilations=(1, 2)), draw(B, 37, IN)
    whole, last = cell(x)
    assert last.levels_h.shape == (B, 8, Q)
    state, pieces = None, []
    for piece in x.split([13, *[1] * 7, 17], 1):
        y, state = cell(piece, state)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=1e-10)
    torch.testing.assert_close(state, last, rtol=0, atol=1e-10)


def by_final_state(cell: TrellisNet, x: Tensor, h0: Tensor, c0: Tensor) -> Tensor:
    """The authors' padding: zeros before x, the given state before every level."""
    w_x, w_h = cell.weights()
    h, c = x.new_zeros(len(x), x.shape[1], cell.units), x.new_zeros(len(x), x.shape[1], cell.units)
    for d in cell.dilations:
        old_x = torch.cat([x.new_zeros(len(x), d, IN), x], 1)[:, : x.shape[1]]
        old_h, old_c = (
            torch.cat([pad.expand(-1, d, -1), part], 1)[:, : x.shape[1]] for pad, part in ((h0, h), (c0, c))
        )
        pre = torch.cat([old_x, x], -1) @ w_x.t() + torch.cat([old_h, h], -1) @ w_h.t() + cell.bias
        i, o, g, f = pre.chunk(4, -1)
        c = torch.sigmoid(f) * old_c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
    return h


@pytest.mark.parametrize("backend", ["auto", "levels", "reference"])
def test_the_published_padding(backend: str) -> None:
    """From a state of any numbers; the state after it is the last level's; gradients reach the state."""
    cell, x = make(levels=4, hidden=2, dilations=(1, 3), carry="final"), draw(B, 7, IN)
    cell.compute = Compute(backend=backend)
    h0, c0 = (draw(B, 1, cell.units, seed=k).requires_grad_() for k in (4, 5))
    expected = by_final_state(cell, x, h0, c0)
    y, last = cell(x, TrellisState(h0, c0, x.new_zeros(B, 0, IN)))
    torch.testing.assert_close(y, expected[..., -Q:], rtol=0, atol=1e-12)
    torch.testing.assert_close(last.levels_h, expected[:, -1:], rtol=0, atol=1e-12)
    wanted = [h0, c0, *cell.parameters()]
    for own, its in zip(
        torch.autograd.grad(y.sin().sum(), wanted),
        torch.autograd.grad(expected[..., -Q:].sin().sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(own, its, rtol=0, atol=1e-10)


def test_the_published_padding_resets_each_row_and_depends_on_the_windows() -> None:
    cell, x = make(levels=3, carry="final"), draw(3, 9, IN)
    start = TrellisState(draw(3, 1, Q, seed=6), draw(3, 1, Q, seed=7), x.new_zeros(3, 0, IN))
    reset = torch.zeros(3, 9, dtype=torch.bool)
    reset[0, 4] = reset[1, 0] = True
    y, _ = cell(x, start, reset)
    torch.testing.assert_close(y[:1, 4:], cell(x[:1, 4:])[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(y[1:2], cell(x[1:2])[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(y[2:], cell(x, start)[0][2:], rtol=0, atol=1e-12)
    first, state = cell(x[:, :4])
    second, _ = cell(x[:, 4:], state)
    assert (torch.cat([first, second], 1) - cell(x)[0]).abs().max() > 1e-3


def test_the_deepest_look_back_is_stated() -> None:
    """Levels of distances d see their sum and the present input, and nothing before."""
    cell, x = make(levels=4, dilations=(1, 2)), draw(1, 12, IN).requires_grad_()
    (grad,) = torch.autograd.grad(cell(x)[0][:, -1].sum(), x)
    seen = grad.abs().sum((0, 2)).nonzero().flatten()
    assert int(seen[0]) == 11 - (1 + 2 + 1 + 2)


def test_outputs_of_levels_are_handed_upwards() -> None:
    cell, x = make(levels=6, hidden=1, aux_frequency=2), draw(B, 5, IN)
    handed: dict[str, Tensor] = {}
    y, _ = cell(x, handed=handed)
    assert handed["auxiliary"].shape == (B, 5, 3, Q)
    torch.testing.assert_close(handed["auxiliary"][:, :, -1], y)
    shorter = make(levels=4, hidden=1)
    shorter.load_state_dict(cell.state_dict())
    torch.testing.assert_close(handed["auxiliary"][:, :, 1], shorter(x)[0], rtol=0, atol=1e-12)


def test_weight_drop_masks_the_older_taps() -> None:
    values = {"width": 8, "cell": {"name": "trellis", "levels": 3}, "dropout": {"weight": 0.5, "inner": 0.3}}
    model = LanguageModel(ModelConfig.parse(values), 7)
    assert model.stack.cells()[0].recurrent_weights == ("input_past", "hidden_past")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"dilations": (0,)}, "give dilations from 1"),
        ({"levels": 1000, "dilations": (100,)}, "look 100000 steps back"),
        ({"levels": 3, "aux_frequency": 4}, "set aux_frequency to at most"),
    ],
)
def test_refusals(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        TrellisConfig(**config)


def test_pieces_that_do_not_fit_are_refused() -> None:
    weight, held = draw(16, 4), draw(B, 3, 4)
    injected = draw(B, 2, 16)
    assert trellis((injected,), weight, weight, held, held, (1, 1, 1)).h.shape == (B, 2, 4)
    for given in (((injected,), held[:, :1], (1, 1, 1)), ((injected, injected), held, (1, 1, 1))):
        with pytest.raises(UsageError, match="pass on what it returned"):
            trellis(given[0], weight, weight, given[1], given[1], given[2])


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "reference"])
@pytest.mark.parametrize("below", [True, False])
def test_backends_with_resets_masks_and_shown_levels(backend: str, below: bool) -> None:
    """Outputs and all gradients, the mask's too, of windows shorter and longer than the distances."""
    dilations, n = (2, 1, 3, 1), 5
    for time in (1, 2, 9):
        names = {"past": (4 * n, n), "now": (4 * n, n), "mask": (B, 1, n), "steps": (B, time, n)}
        held = sum(dilations[0 if below else 1 :])
        names |= {"h": (B, held, n), "c": (B, held, n)} | {f"x{d}": (B, time, 4 * n) for d in (2, 1, 3)}
        given = {name: draw(*shape, seed=len(name)).requires_grad_() for name, shape in names.items()}
        reset = draw(B, time, seed=8) > 1.0
        results = []
        for kind in (backend, "reference"):
            for mask in ("mask", "steps"):
                found = trellis(
                    [given[f"x{d}"] for d in (2, 1, 3)], given["past"], given["now"], given["h"], given["c"], dilations,
                    reset, given[mask], (1, 3), backend=kind,
                )  # fmt: skip
                parts = [part for part in found if part is not None]
                wanted = [value for name, value in given.items() if name == mask or name not in ("mask", "steps")]
                loss = torch.stack([(part * draw(*part.shape, seed=k)).sum() for k, part in enumerate(parts)]).sum()
                results.append([*parts, *torch.autograd.grad(loss, wanted)])
        for own, its in zip(results[0] + results[1], results[2] + results[3], strict=True):
            torch.testing.assert_close(own, its, rtol=1e-9, atol=1e-9)
