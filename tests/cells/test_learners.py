"""Cells that learn while they read: what they are equal to, what they see, and where they begin."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu, softplus

from conformance.material import wave
from conformance.tolerance import assert_close, relative_error
from unrolled.cells import CELLS
from unrolled.cells.learners.attend import turned_by
from unrolled.cells.matrix.base import unit
from unrolled.cells.mixer import Given
from unrolled.core.errors import UsageError
from unrolled.kernels.learner_scan.inner import layers_of
from unrolled.kernels.matrix_scan import delta_scan

WIDTH, T = 8, 11
X = wave(2, T, WIDTH, phase=0.3)


def make(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    cell = CELLS[name](WIDTH, WIDTH, CELLS.parse({"name": name, **options})).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return cell


def test_titans_of_one_layer_is_the_delta_rule_with_twice_the_step() -> None:
    cell = make("titans", heads=2, depth=1, chunk=1, momentum=False, forget="none")
    with torch.no_grad():
        cell.start.zero_()
    qkv, gate = cell.linear("weight", X).split([3 * WIDTH, WIDTH], -1)
    qkv, _ = cell.conv(qkv, cell.initial_state(2, dtype=torch.float64).conv)
    q, k, v = (part.unflatten(-1, (2, 4)) for part in qkv.chunk(3, -1))
    theta = torch.sigmoid(cell.linear("step", X, "step_bias"))
    o, _ = delta_scan(unit(q), unit(k), v, 2 * theta)
    expected = cell.linear("out", cell.norm(o).flatten(2) * silu(gate))
    assert_close(cell(X)[0], expected, "delta rule")


@pytest.mark.parametrize(
    ("name", "fixed", "option", "other"),
    [
        ("ttt_linear", {}, "rate", 0.3),
        ("ttt_linear", {}, "rotary_base", 3.0),
        ("ttt_mlp", {}, "rate", 0.3),
        ("titans", {}, "rate", 0.3),
        ("titans", {}, "chunk", 2),
        ("titans", {}, "forget", "zero"),
        ("titans", {"layout": "gate"}, "window", 3),
        ("titans", {"layout": "layer"}, "window", 3),
        ("titans", {"layout": "context"}, "chunk", 2),
    ],
)
def test_an_option_changes_the_result(name: str, fixed: dict[str, Any], option: str, other: Any) -> None:
    first, second = make(name, heads=2, **fixed), make(name, heads=2, **fixed, **{option: other})
    second.load_state_dict(first.state_dict())
    assert relative_error(second(X)[0], first(X)[0]) > 1e-6


def test_window_layouts_attend_to_the_last_tokens_and_the_persistent() -> None:
    """Masked softmax over the window and the persistent keys, which no rotation turns."""
    cell = make("titans", heads=2, layout="gate", window=3, persistent=2)
    found, _ = cell._window(X, cell.initial_state(2, dtype=torch.float64), Given(None, {}, None, {}))
    q, k, v = (part.unflatten(-1, (2, 4)) for part in cell.linear("attend", X).chunk(3, -1))
    at, keys = turned_by(torch.arange(T), q, k)
    gap = torch.arange(T).view(-1, 1) - torch.arange(T)
    scores = torch.einsum("bihc,bjhc->bhij", at, keys).masked_fill((gap < 0) | (gap > 2), -torch.inf)
    scores = torch.cat([scores, torch.einsum("bihc,mhc->bhim", q, cell.persistent[0])], -1) / 2
    values = torch.cat([v, cell.persistent[1].expand(2, -1, -1, -1)], 1)
    expected = torch.einsum("bhij,bjhc->bihc", scores.softmax(-1), values).flatten(2)
    assert_close(found, expected, "window and persistent")


@pytest.mark.parametrize("layout", ["context", "gate", "layer"])
def test_persistent_tokens_are_learned_and_never_written(layout: str) -> None:
    cell = make("titans", heads=2, layout=layout, chunk=3, window=4)
    y, state = cell(X)
    (grad,) = torch.autograd.grad(y.square().sum(), cell.persistent)
    assert bool((grad.abs().sum((2, 3)) > 0).all()), "every pair of key and value gets a gradient"
    kept = cell.persistent.detach().clone()
    cell(X, state)
    assert torch.equal(cell.persistent, kept)
    if layout != "context":
        with torch.no_grad():
            cell.persistent.add_(1.0)
        for name in ("before", "weights", "sums"):
            assert torch.equal(getattr(cell(X)[1], name), getattr(state, name)), f"{name} has read them"


def without_learning(**options: Any) -> Any:
    """A memory that stays what it is: all of its steps are zero."""
    cell = make("titans", heads=2, layout="context", chunk=4, kernel=2, momentum=False, forget="none", **options)
    with torch.no_grad():
        cell.step.zero_()
        cell.step_bias.fill_(-1e4)
    return cell


def seen(cell: Any) -> Tensor:
    """Which inputs (columns) each output (row) depends on."""
    x = X[:1].clone().requires_grad_()
    y, _ = cell(x)
    rows = [torch.autograd.grad(y[:, t].sum(), x, retain_graph=True)[0][0].abs().sum(-1) > 0 for t in range(T)]
    return torch.stack(rows)


def test_context_attends_within_segments_and_carries_by_the_memory() -> None:
    place = torch.arange(T)
    same = (place.view(-1, 1) // 4 == place // 4) & (place.view(-1, 1) >= place)
    alone = seen(without_learning())
    # the memory's short convolution sees one output of attention before
    before = torch.cat([torch.zeros(1, T, dtype=torch.bool), same[:-1]])
    assert torch.equal(alone, same | before)
    learned = seen(make("titans", heads=2, layout="context", chunk=4, kernel=2))
    assert torch.equal(learned, torch.ones(T, T, dtype=torch.bool).tril())


def test_what_is_recalled_comes_from_before_the_segment() -> None:
    """Other weights of now are read from the next segment on, those before the open chunk at once."""
    cell = without_learning()
    _, state = cell(X[:, :2])
    with torch.no_grad():
        plain = cell(X[:, 2:], state)[0]
        old = cell(X[:, 2:], state._replace(before=state.before + 0.5))[0]
    assert relative_error(old[:, :2], plain[:, :2]) > 1e-6
    assert_close(old[:, 2 + 4 :], plain[:, 2 + 4 :], "segments after the next")


def test_starts() -> None:
    torch.manual_seed(0)
    cell = CELLS["titans"](64, 64, CELLS.parse({"name": "titans", "heads": 64, "kernel": 2}))
    alpha = 1 - torch.exp(-softplus(cell.step_bias.detach()[-64:]))
    assert 0.0009 < float(alpha.min()) < 0.004
    assert 0.03 < float(alpha.max()) < 0.1
    assert not cell.step_bias[:-64].any()
    linear = CELLS["ttt_mlp"](64, 64, CELLS.parse({"name": "ttt_mlp", "heads": 2}))
    for weight, bias in layers_of(linear.start, linear.network(linear.config, 64)):
        assert bias is not None
        assert not bias.any()
        assert 0.019 < float(weight.detach().std()) < 0.021


def test_context_of_one_token_is_refused() -> None:
    with pytest.raises(UsageError, match="one of 1 token is none; give chunk = 2"):
        CELLS.parse({"name": "titans", "layout": "context", "chunk": 1})
