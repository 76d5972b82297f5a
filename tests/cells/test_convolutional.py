"""Gated and temporal convolutional networks against torch's convolutions, and dilation by the layer's place."""

from typing import Any

import pytest
import torch
from torch import Tensor, _weight_norm  # pyright: ignore[reportPrivateImportUsage]
from torch.nn.functional import conv1d, glu, pad, relu

from unrolled.cells import CELLS, Noise
from unrolled.cells.conv.base import CausalMap
from unrolled.cells.conv.gcnn import GCNN, GCNNConfig
from unrolled.cells.conv.tcn import TCN, TCNConfig
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.model import LanguageModel, ModelConfig

B, T, IN, N = 2, 37, 5, 6


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(cls: Any, config: Any, in_width: int = IN) -> Any:
    """With weights three times those of the start, and biases that are not zero."""
    torch.manual_seed(0)
    cell = cls(in_width, N, config).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(3).add_(0.1 * torch.randn_like(parameter))
    return cell


def causal(x: Tensor, conv: CausalMap, dilation: int = 1) -> Tensor:
    """torch's convolution of (batch, time, in) behind zeros; its own weight norm where there is one."""
    weight = conv.weight
    if conv.gain is not None:
        weight = _weight_norm(weight, conv.gain.view(-1, 1, 1), 0)
    seen = pad(x.transpose(1, 2), ((conv.kernel - 1) * dilation, 0))
    return conv1d(seen, weight, conv.bias, dilation=dilation).transpose(1, 2)


@pytest.mark.parametrize("index", range(len(GCNN.EXAMPLES)))
def test_gcnn_is_glu_of_torchs_convolution(index: int) -> None:
    """Outputs and all gradients."""
    config: Any = GCNN.EXAMPLES[index]
    cell = make(GCNN, config)
    x = draw(B, T, IN).requires_grad_()
    h = x
    for conv in cell.convs:
        h = glu(causal(h, conv), -1)
    expected = h + x @ cell.skip.t() if config.residual else h
    y, _ = cell(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    wanted = [x, *cell.parameters()]
    cotangent = draw(*y.shape, seed=1)
    for own, its in zip(
        torch.autograd.grad(y, wanted, cotangent), torch.autograd.grad(expected, wanted, cotangent), strict=True
    ):
        torch.testing.assert_close(own, its, rtol=0, atol=1e-10)


def test_a_gcnn_of_one_width_adds_its_input_itself() -> None:
    cell, x = make(GCNN, GCNNConfig(), N), draw(B, T, N)
    torch.testing.assert_close(cell(x)[0], x + glu(causal(x, cell.convs[0]), -1), rtol=0, atol=1e-12)
    assert not hasattr(cell, "skip")


def test_a_bottleneck_is_1_k_1() -> None:
    cell = GCNN(IN, N, GCNNConfig(kernel=5, layers=2, bottleneck=3))
    shapes = [tuple(conv.weight.shape) for conv in cell.convs]  # type: ignore[union-attr]
    assert shapes == [(6, IN, 1), (6, 3, 5), (6, 3, 5), (2 * N, 3, 1)]


@pytest.mark.parametrize("index", range(len(TCN.EXAMPLES)))
@pytest.mark.parametrize("in_width", [IN, N])
def test_tcn_is_the_published_block(index: int, in_width: int) -> None:
    config: Any = TCN.EXAMPLES[index]
    cell = make(TCN, config, in_width)
    x = draw(B, T, in_width).requires_grad_()
    d = config.dilation or 1
    u = relu(causal(x, cell.first, d))
    v = relu(causal(u, cell.second, d))
    expected = relu(v + (x if in_width == N else x @ cell.skip.t() + cell.skip_bias))
    y, _ = cell(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    wanted = [x, *cell.parameters()]
    for own, its in zip(torch.autograd.grad(y.sum(), wanted), torch.autograd.grad(expected.sum(), wanted), strict=True):
        torch.testing.assert_close(own, its, rtol=0, atol=1e-10)


def stack(cell: Any, layers: int, **options: Any) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(ModelConfig.parse({"width": N, "layers": layers, "cell": cell, **options}), 7).double()


def test_dilation_doubles_from_layer_to_layer_unless_it_is_set() -> None:
    model = stack({"name": "tcn", "kernel": 3}, 4)
    assert [cell.dilation for cell in model.stack.cells()] == [1, 2, 4, 8]  # type: ignore[attr-defined]
    assert model.initial_state(1).cells[3].conv.shape == (1, 2 * 16 * N)
    fixed = stack({"name": "tcn", "dilation": 3}, 2)
    assert [cell.dilation for cell in fixed.stack.cells()] == [3, 3]  # type: ignore[attr-defined]


def test_a_tcn_sees_as_far_as_published() -> None:
    """1 + 2(k - 1)(2^L - 1) inputs, and none before them, at 3 layers and kernel 3."""
    model = stack({"name": "tcn", "kernel": 3}, 3)
    x = draw(1, 40, N).requires_grad_()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    y, _ = model.stack(x.abs(), model.initial_state(1).cells)
    (grad,) = torch.autograd.grad(y[:, -1].sum(), x)
    seen = grad.abs().sum((0, 2)).nonzero().flatten()
    assert (int(seen[0]), int(seen[-1])) == (40 - (1 + 2 * 2 * 7), 39)


def test_a_stack_of_dilated_blocks_goes_on_where_a_window_ended() -> None:
    model = stack({"name": "tcn", "kernel": 2}, 4)
    ids = torch.arange(2 * T).view(2, T) % 7
    whole = model(ids)
    state, pieces = None, []
    for piece in ids.split([13, 1, 1, 22], 1):
        out = model(piece, state)
        state = out.state
        pieces.append(out.raw)
    torch.testing.assert_close(torch.cat(pieces, 1), whole.raw, rtol=0, atol=1e-12)


def test_too_many_layers_are_refused() -> None:
    with pytest.raises(UsageError, match=r"2\^17 steps apart; set its dilation"):
        stack({"name": "tcn"}, 18)
    assert stack({"name": "tcn", "dilation": 1}, 18).num_params() > 0


@pytest.mark.parametrize("cell", ["gcnn", "tcn"])
def test_weight_norm_starts_where_it_would_without(cell: str) -> None:
    made = []
    for normed in (True, False):
        torch.manual_seed(0)
        made.append(CELLS[cell](IN, N, CELLS.parse({"name": cell, "weight_norm": normed})).double())
    x = draw(B, 5, IN)
    torch.testing.assert_close(made[0](x)[0], made[1](x)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("mask", ["step", "window"])
def test_dropout_inside_is_drawn_for_each_site_and_acts(mask: str) -> None:
    model = stack("tcn", 2, dropout={"inner": 0.5, "mask": mask})
    drawn = model.draw_masks(3, 5, RandomStreams(1), 0)
    assert drawn is not None
    assert [set(masks or ()) for masks in drawn.inner] == [{"first", "second"}] * 2
    shapes = {tuple(value.shape) for masks in drawn.inner for value in (masks or {}).values()}
    assert shapes == {(3, 5 if mask == "step" else 1, N)}
    assert len({float(value[0, 0] @ draw(N)) for masks in drawn.inner for value in (masks or {}).values()}) > 1
    ids = torch.arange(15).view(3, 5) % 7
    assert not torch.equal(model(ids, masks=drawn).raw, model(ids).raw)
    with pytest.raises(UsageError, match=r"has no sites inside for dropout\.inner"):
        stack("lstm", 1, dropout={"inner": 0.1})


def test_a_mask_at_a_site_multiplies_what_is_there() -> None:
    cell, x = make(TCN, TCNConfig(), N), draw(B, T, N)
    masks = {"first": draw(B, 1, N, seed=2), "second": draw(B, T, N, seed=3)}
    u = relu(causal(x, cell.first)) * masks["first"]
    expected = relu(x + relu(causal(u, cell.second)) * masks["second"])
    torch.testing.assert_close(cell(x, noise=Noise(inner=masks))[0], expected, rtol=0, atol=1e-12)
    lstm = CELLS["lstm"](N, N, CELLS.parse("lstm")).double()
    with pytest.raises(UsageError, match="has no sites for dropout inside"):
        lstm(x, noise=Noise(inner=masks))
